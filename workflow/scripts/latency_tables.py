"""Tables of methods of conversion."""

from bsnn import log, stages, stages_methods
from bsnn.config import validate

if __name__ == "__main__":  # processes that training or decoding starts import this file anew
    with log.job(snakemake.log[0]):
        stages_methods.tables(stages.Job(validate(snakemake.config), snakemake.wildcards.experiment))
