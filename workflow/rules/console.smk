# The console of a run: brief, unless Snakemake's own flags ask for its messages: --verbose for all of them, --quiet for
# some. Those of every run are in .snakemake/log/ as well. This file is read before the configuration; what common.smk
# declares, it asks for once a run begins.

import sys

sys.path.insert(0, str(workflow.basedir))

from bsnn.console import answer, handler
from bsnn.pipeline import costs
from bsnn.pipeline.declarations import STAGES, TARGETS


def job_of(rule, wildcards):
    """Rule and place of a job."""
    return rule, declared.place_of(PIPELINE, rule, dict(wildcards))


def jobs_ahead():
    """Jobs that run, with the seconds that each will take."""
    found = [job for job in workflow.dag.needrun_jobs() if job.rule.name in STAGES]
    expected = costs.Expected(PIPELINE)
    return {one: expected.whole(*one) for one in (job_of(job.rule.name, job.wildcards_dict) for job in found)}


def targets_asked():
    """Targets of the command line that are declared; files may be asked for as well."""
    return [target for target in workflow.dag_settings.targets or ["all"] if target in TARGETS]


def console():
    """The console, where this process is the one that a user started, for a run."""
    settings = workflow.output_settings
    if not workflow.is_main_process or settings.verbose or settings.quiet is not None:
        return None
    run = handler.Run(
        ahead=jobs_ahead,
        reused=lambda ahead: costs.reused(PIPELINE, targets_asked(), ahead),
        one=job_of,
        answer=lambda: answer.text(PIPELINE, targets_asked()),
        cores=lambda: workflow.resource_settings.cores if workflow.local_exec else None,
        threads=lambda: THREADS,
        dry=settings.dryrun,
    )
    return handler.attach(workflow.logger_manager.logger, run)


CONSOLE = console()


onsuccess:
    if CONSOLE is not None:
        CONSOLE.ended(well=True, complete=", ".join(log))


onerror:
    if CONSOLE is not None:
        CONSOLE.ended(well=False, complete=", ".join(log))
