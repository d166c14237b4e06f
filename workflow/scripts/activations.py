"""Percentiles of a network's activations."""

from bsnn import log
from bsnn.config import validate
from bsnn.pipeline.job import Job
from bsnn.stages import convert as stages_convert

if __name__ == "__main__":  # processes that training or decoding starts import this file anew
    with log.job(snakemake.log[0]):
        job = Job.of(validate(snakemake.config), dict(snakemake.wildcards))
        stages_convert.activations(job)
