"""Train a full-precision network, or fine-tune a binary one."""

from bsnn import log
from bsnn.config import validate
from bsnn.pipeline.job import Job
from bsnn.stages import train as stages_train

if __name__ == "__main__":  # processes that training or decoding starts import this file anew
    with log.job(snakemake.log[0]):
        place = {**snakemake.wildcards, "weights": snakemake.params.weights}
        job = Job.of(validate(snakemake.config), place)
        stages_train.train(job)
