# Needs: a trained network, its thresholds, and the data set (test images).
# Makes, for each shard of the test set: results/{experiment}/{weights}/seed{seed}/p{percentile}/
#   predictions-{key}.{shard}of{shards}.parquet (class and margin of each image at each step), and
#   spikes-{key}.{shard}of{shards}.parquet (spike counts of each layer at each step).


rule simulate:
    """Shard {wildcards.shard} of {wildcards.shards}: {wildcards.experiment}, {wildcards.weights}, percentile {wildcards.percentile}."""
    input:
        unpack(needs("simulate")),
    output:
        predictions="results/{experiment}/{weights}/seed{seed}/p{percentile}/predictions-{key}.{shard}of{shards}.parquet",
        spikes="results/{experiment}/{weights}/seed{seed}/p{percentile}/spikes-{key}.{shard}of{shards}.parquet",
    log:
        "logs/simulate/{experiment}/{weights}-seed{seed}-p{percentile}-{key}.{shard}of{shards}.log",
    benchmark:
        "logs/benchmarks/simulate/{experiment}/{weights}-seed{seed}-p{percentile}-{key}.{shard}of{shards}.tsv"
    conda:
        "../../environment.yml"
    threads: THREADS
    resources:
        mem_mb=each_try(2000 + CONFIG.compute.memory_mib),
        runtime=each_try(120),
    script:
        "../scripts/stage.py"
