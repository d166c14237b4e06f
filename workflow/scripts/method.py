"""Simulate a method of conversion on one shard of the test set."""

from bsnn import log
from bsnn.config import validate
from bsnn.pipeline.job import MethodJob
from bsnn.stages import methods as stages_methods

if __name__ == "__main__":  # processes that training or decoding starts import this file anew
    with log.job(snakemake.log[0]):
        job = MethodJob.of(validate(snakemake.config), dict(snakemake.wildcards))
        stages_methods.method(job)
