"""Note the settings that results are made for."""

from bsnn import log, stages
from bsnn.config import validate

with log.job(snakemake.log[0]):
    job = stages.Job(validate(snakemake.config), snakemake.wildcards.experiment)
    stages.settings(job, snakemake.output[0])
