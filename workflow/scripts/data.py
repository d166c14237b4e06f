"""Prepare and verify a data set."""

from bsnn import log, stages
from bsnn.config import validate

with log.job(snakemake.log[0]):
    stages.data(stages.Job(validate(snakemake.config), snakemake.params.experiment))
