# Needs: the data set.
# Makes: results/{experiment}/full/seed{seed}/ann-{key}.safetensors, and history-{key}.parquet (one row per epoch).
# The resumable checkpoint lies under results/checkpoints/, undeclared, so that a killed job goes on from it.


rule train:
    """Train the full-precision network of {wildcards.experiment}, seed {wildcards.seed}."""
    input:
        unpack(needs("train")),
    output:
        network="results/{experiment}/full/seed{seed}/ann-{key}.safetensors",
        history="results/{experiment}/full/seed{seed}/history-{key}.parquet",
    log:
        "logs/train/{experiment}/seed{seed}-{key}.log",
    benchmark:
        "logs/benchmarks/train/{experiment}/seed{seed}-{key}.tsv"
    conda:
        "../../environment.yml"
    threads: THREADS
    resources:
        mem_mb=each_try(8000),
        runtime=720,
    script:
        "../scripts/stage.py"
