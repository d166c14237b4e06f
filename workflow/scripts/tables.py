"""Tables of an experiment."""

from bsnn import log, stages
from bsnn.config import validate

if __name__ == "__main__":  # processes that training or decoding starts import this file anew
    with log.job(snakemake.log[0]):
        stages.tables(stages.Job(validate(snakemake.config), snakemake.wildcards.experiment))
