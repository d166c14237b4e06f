# Needs: the activation table, nothing else.
# Makes: results/{experiment}/{weights}/seed{seed}/p{percentile}/thresholds-{key}.parquet: lambda and threshold by layer.


localrules:
    thresholds,


rule thresholds:
    """Thresholds at percentile {wildcards.percentile}, {wildcards.weights} network of {wildcards.experiment}."""
    input:
        unpack(needs("thresholds")),
    output:
        "results/{experiment}/{weights}/seed{seed}/p{percentile}/thresholds-{key}.parquet",
    log:
        "logs/thresholds/{experiment}/{weights}-seed{seed}-p{percentile}-{key}.log",
    benchmark:
        "logs/benchmarks/thresholds/{experiment}/{weights}-seed{seed}-p{percentile}-{key}.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=1000,
        runtime=10,
    script:
        "../scripts/stage.py"
