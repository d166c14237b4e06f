# What the rules share: the checked configuration, and their inputs, as the pipeline declares them
# (bsnn/pipeline/declarations.py). A path's key stands for all settings that its content depends on. Inputs are
# `ancient`: whether a job runs is decided by missing paths alone, never by file times.

import sys

from snakemake.exceptions import WorkflowError

from bsnn import config as settings
from bsnn.artifacts import claim
from bsnn.cluster import signals
from bsnn.errors import BsnnError, ConfigError
from bsnn.pipeline import workflow as declared
from bsnn.pipeline.model import Pipeline

try:
    if workflow.is_main_process:
        for path in map(str, workflow.configfiles):
            if path.endswith((".yaml", ".yml")):
                settings.reading.read(path)  # Snakemake's own reader takes the last of two equal keys, without a word
    CONFIG = settings.validate(config)
except ConfigError as error:
    sys.exit(str(error))  # as a WorkflowError it would stand between this file's name and line, which nobody needs

signals.within_step()
PIPELINE = Pipeline(CONFIG)
THREADS = CONFIG.compute.threads


CLAIMS = []


onstart:
    if workflow.is_main_process:  # not within its jobs
        if workflow.local_exec:  # SLURM's jobs are no processes of this machine
            signals.to_trainings()
        try:
            CLAIMS.append(claim(PIPELINE.root))  # held until the process ends
        except BsnnError as error:
            raise WorkflowError(str(error)) from None


wildcard_constraints:
    **declared.CONSTRAINTS,
    experiment="|".join(CONFIG.experiments),


def each_try(amount):
    """Memory or time that grows with each try of a job."""
    return lambda w, attempt: amount * attempt


def forced():
    """Whether files are to be made again that are there, and all that depends on them: `-F` and `-R RULE`."""
    asked = workflow.dag_settings  # not known yet while the rules are read
    return workflow.is_main_process and bool(asked.forceall or asked.forcerun)


def needs(rule):
    """Input function of a rule: the files that its job reads, by the stages that make them."""

    def inputs(w):
        try:
            found = declared.inputs(PIPELINE, rule, dict(w), forced=forced())
            return found if forced() else {stage: ancient(files) for stage, files in found.items()}
        except ConfigError as error:
            raise WorkflowError(str(error)) from None

    return inputs


def files_of(target):
    """Input function of a target: files of every experiment that runs, and for `snakemake --report` what they show."""

    def inputs(w):
        try:
            shown = declared.shown(PIPELINE, target)
            return declared.targets(PIPELINE, target) + [in_report(path) for path in shown if path.suffix != ".parquet"]
        except ConfigError as error:
            raise WorkflowError(str(error)) from None

    return inputs


def in_report(path):
    """A file at a plain name for `snakemake --report`: by its absolute path, which no rule makes."""
    return report(str(path.absolute()), category=path.relative_to("results").parts[0], labels={"file": path.name})


def vouching(w):
    """Input function of a file at a plain name: the note that vouches for it. A file out of date is made again."""
    try:
        note = declared.note_of(PIPELINE, w.experiment, w.shown)
    except ConfigError as error:
        raise WorkflowError(str(error)) from None
    if not note.exists():  # a file that is there is up to date to Snakemake, unless it is forced
        workflow.dag.forcefiles.add(f"results/{w.experiment}/{w.shown}")
    return ancient(str(note))
