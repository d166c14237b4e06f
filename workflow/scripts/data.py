"""Prepare and verify a data set."""

from bsnn import log, stages
from bsnn.config import validate

if __name__ == "__main__":  # processes that training or decoding starts import this file anew
    with log.job(snakemake.log[0]):
        stages.data(stages.Job(validate(snakemake.config), snakemake.params.experiment))
