# Binary and full-precision networks, converted to spiking networks and simulated exactly.
#
#   snakemake                    everything that `run` in config.yaml names, up to tables, figures and reports
#   snakemake networks           only the trained networks; likewise: activation_tables, threshold_tables, simulations
#   snakemake latency            methods of conversion for few time steps, side by side
#   snakemake paper              the paper's results (results/EXPERIMENT/paper.html); one alone: paper_accuracy, paper_time,
#                                paper_pooling, paper_activity, paper_operations, paper_latency, paper_hyperparameters
#   snakemake search             the best switches for a wanted time or drop, chosen on held-out training images
#   snakemake early_exit         accuracy against mean steps and operations, the bound chosen likewise
#   snakemake --config percentile=99.5 time=50 run=cifar100      the same, with other settings

from snakemake.utils import min_version

min_version("9.27")


# Before the configuration, since Snakemake speaks of that too.
include: "workflow/rules/console.smk"


configfile: "config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/networks.smk"
include: "workflow/rules/convert.smk"
include: "workflow/rules/results.smk"


rule all:
    default_target: True
    input:
        files_of("all"),


rule networks:
    input:
        files_of("networks"),


rule activation_tables:
    input:
        files_of("activation_tables"),


rule threshold_tables:
    input:
        files_of("threshold_tables"),


rule simulations:
    input:
        files_of("simulations"),


rule latency:
    input:
        files_of("latency"),


rule search:
    input:
        files_of("search"),


rule early_exit:
    input:
        files_of("early_exit"),
