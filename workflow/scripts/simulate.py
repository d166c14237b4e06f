"""Simulate one shard of the test set."""

from bsnn import log, stages
from bsnn.config import validate

if __name__ == "__main__":  # processes that training or decoding starts import this file anew
    with log.job(snakemake.log[0]):
        job = stages.Job.of(validate(snakemake.config), dict(snakemake.wildcards))
        stages.simulate(job)
