"""Prepare and verify a data set."""

from bsnn import log
from bsnn.config import validate
from bsnn.pipeline.job import Job
from bsnn.stages import train as stages_train

if __name__ == "__main__":  # processes that training or decoding starts import this file anew
    with log.job(snakemake.log[0]):
        stages_train.data(Job(validate(snakemake.config), snakemake.params.experiment))
