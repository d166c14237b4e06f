# Needs: nothing, or the folder that `data.path` names.
# Makes: results/data/{data}-{key}.safetensors (arrays) or .parquet (index of image files): whole and verified.


rule data:
    """Fetch, verify and store data set {wildcards.data}."""
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
