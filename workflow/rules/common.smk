# What the rules share: the checked configuration, and their inputs, as the pipeline declares them
# (bsnn/pipeline/declarations.py). A path's key stands for all settings that its content depends on. Inputs are
# `ancient`: whether a job runs is decided by missing paths alone, never by file times.

import sys

from snakemake.exceptions import WorkflowError

sys.path.insert(0, str(workflow.basedir))

from bsnn import config as settings
from bsnn.artifacts import claim
from bsnn.cluster import signals
from bsnn.errors import BsnnError, ConfigError
from bsnn.pipeline import workflow as declared
from bsnn.pipeline.model import Pipeline

try:
    CONFIG = settings.validate(config)
except ConfigError as error:
    raise WorkflowError(str(error)) from None

signals.within_step()
PIPELINE = Pipeline(CONFIG)
THREADS = CONFIG.compute.threads


CLAIMS = []


onstart:
    if workflow.is_main_process:  # not within its jobs
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


def needs(rule):
    """Input function of a rule: the files that its job reads, by the stages that make them."""

    def inputs(w):
        try:
            return {stage: ancient(files) for stage, files in declared.inputs(PIPELINE, rule, dict(w)).items()}
        except ConfigError as error:
            raise WorkflowError(str(error)) from None

    return inputs


def files_of(target):
    """Input function of a target: files of every experiment that runs."""

    def inputs(w):
        try:
            return declared.targets(PIPELINE, target)
        except ConfigError as error:
            raise WorkflowError(str(error)) from None

    return inputs
