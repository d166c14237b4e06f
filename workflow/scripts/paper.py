"""One of the paper's results, or the report of all."""

from bsnn import log
from bsnn.config import validate
from bsnn.pipeline.job import Job
from bsnn.stages import paper as stages_paper

if __name__ == "__main__":  # processes that training or decoding starts import this file anew
    with log.job(snakemake.log[0]):
        job = Job(validate(snakemake.config), snakemake.wildcards.experiment)
        if snakemake.params.result == "report":
            stages_paper.report(job)
        else:
            stages_paper.result(job, snakemake.params.result)
