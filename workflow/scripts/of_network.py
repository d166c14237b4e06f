"""A stage that chooses by held-out training images, or shows what was chosen."""

from bsnn import log
from bsnn.config import validate
from bsnn.pipeline.job import Job
from bsnn.stages import search as stages_search

if __name__ == "__main__":  # processes that training or decoding starts import this file anew
    with log.job(snakemake.log[0]):
        job = Job.of(validate(snakemake.config), dict(snakemake.wildcards))
        getattr(stages_search, snakemake.params.stage)(job)
