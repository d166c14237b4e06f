"""Figures of an experiment."""

from bsnn import log
from bsnn.config import validate
from bsnn.pipeline.job import Job
from bsnn.stages import results as stages_results

if __name__ == "__main__":  # processes that training or decoding starts import this file anew
    with log.job(snakemake.log[0]):
        stages_results.figures(Job(validate(snakemake.config), snakemake.wildcards.experiment))
