"""Train a full-precision network, or fine-tune a binary one."""

from bsnn import log, stages
from bsnn.config import validate

if __name__ == "__main__":  # processes that training or decoding starts import this file anew
    with log.job(snakemake.log[0]):
        place = {**snakemake.wildcards, "weights": snakemake.params.weights}
        job = stages.Job.of(validate(snakemake.config), place)
        stages.train(job)
