"""Any stage: the rule's name says which one, the wildcards say what of."""

import os

from bsnn import log, stages
from bsnn.config import validate
from bsnn.pipeline.job import Job
from bsnn.pipeline.model import Pipeline
from bsnn.pipeline.workflow import place_of

if __name__ == "__main__":  # processes that training or decoding starts import this file again
    with log.job(snakemake.log[0], alone=log.ALONE in os.environ):
        pipeline = Pipeline(validate(snakemake.config))
        stages.run(snakemake.rule, Job(pipeline, place_of(pipeline, snakemake.rule, dict(snakemake.wildcards))))
