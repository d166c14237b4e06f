"""Tables of an experiment."""

from bsnn import log, stages
from bsnn.config import validate

with log.job(snakemake.log[0]):
    stages.tables(stages.Job(validate(snakemake.config), snakemake.wildcards.experiment))
