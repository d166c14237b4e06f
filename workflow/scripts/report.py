"""Report of an experiment."""

from bsnn import log, stages
from bsnn.config import validate

with log.job(snakemake.log[0]):
    stages.report(stages.Job(validate(snakemake.config), snakemake.wildcards.experiment))
