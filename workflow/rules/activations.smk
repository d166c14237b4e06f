# Needs: a trained network, and the data set (training images).
# Makes: results/{experiment}/{weights}/seed{seed}/activations-{key}.parquet: every percentile of every layer, exact.


rule activations:
    """Percentiles of the {wildcards.weights} network of {wildcards.experiment}, seed {wildcards.seed}."""
    input:
        unpack(needs("activations")),
    output:
        "results/{experiment}/{weights}/seed{seed}/activations-{key}.parquet",
    log:
        "logs/activations/{experiment}/{weights}-seed{seed}-{key}.log",
    benchmark:
        "logs/benchmarks/activations/{experiment}/{weights}-seed{seed}-{key}.tsv"
    conda:
        "../../environment.yml"
    threads: THREADS
    resources:
        mem_mb=each_try(8000),
        runtime=each_try(120),
    script:
        "../scripts/stage.py"
