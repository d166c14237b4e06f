# Needs: the data set, and the full-precision network to start from.
# Makes: results/{experiment}/binary/seed{seed}/ann-{key}.safetensors (1 bit per binary weight), history-{key}.parquet,
# and summary-{key}.parquet (weights, memory and MACs by layer).


rule binarize:
    """Fine-tune the binary network of {wildcards.experiment}, seed {wildcards.seed}."""
    input:
        unpack(needs("binarize")),
    output:
        network="results/{experiment}/binary/seed{seed}/ann-{key}.safetensors",
        history="results/{experiment}/binary/seed{seed}/history-{key}.parquet",
        summary="results/{experiment}/binary/seed{seed}/summary-{key}.parquet",
    log:
        "logs/binarize/{experiment}/seed{seed}-{key}.log",
    benchmark:
        "logs/benchmarks/binarize/{experiment}/seed{seed}-{key}.tsv"
    conda:
        "../../environment.yml"
    threads: THREADS
    resources:
        mem_mb=each_try(8000),
        runtime=720,
    script:
        "../scripts/stage.py"
