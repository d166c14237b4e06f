# Data sets and trained networks. The paths of their files are those of bsnn/pipeline/declarations.py.
# What a killed training goes on from lies under results/checkpoints/: no output, which Snakemake would remove.


rule data:
    """Fetch, verify and store a data set."""
    input:
        unpack(needs("data")),
    output:
        "results/data/{data}-{key}.{suffix,safetensors|parquet}",
    log:
        "logs/data/{data}-{key}.{suffix}.log",
    benchmark:
        "logs/benchmarks/data/{data}-{key}.{suffix}.tsv"
    conda:
        "../../environment.yml"
    threads: THREADS
    resources:
        mem_mb=each_try(4000),
        runtime=240,
    script:
        "../scripts/stage.py"


rule train:
    """Train the full-precision network of an experiment, or read it from a file."""
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


rule binarize:
    """Fine-tune the binary network of an experiment from the full-precision one, or read it from a file."""
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
