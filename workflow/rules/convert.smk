# From trained networks to counted spikes. Thresholds need the activation table alone. A shard of the test set is
# simulated at a percentile, or by a method of conversion; search and early exit choose by held-out training images.


localrules:
    thresholds,


rule activations:
    """Percentiles of the activations of a network, layer by layer."""
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


rule thresholds:
    """Thresholds at a percentile, from the activation table."""
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


rule simulate:
    """Spiking network at a percentile, on one shard of the test images."""
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


rule method:
    """Spiking network by a method, for a number of steps, on one shard of the test images."""
    input:
        unpack(needs("method")),
    output:
        predictions="results/{experiment}/{weights}/seed{seed}/methods/{method}/T{steps}/predictions-{key}.{shard}of{shards}.parquet",
        spikes="results/{experiment}/{weights}/seed{seed}/methods/{method}/T{steps}/spikes-{key}.{shard}of{shards}.parquet",
        operations="results/{experiment}/{weights}/seed{seed}/methods/{method}/T{steps}/operations-{key}.{shard}of{shards}.parquet",
        errors="results/{experiment}/{weights}/seed{seed}/methods/{method}/T{steps}/errors-{key}.{shard}of{shards}.parquet",
    log:
        "logs/method/{experiment}/{weights}-seed{seed}-{method}-T{steps}-{key}.{shard}of{shards}.log",
    benchmark:
        "logs/benchmarks/method/{experiment}/{weights}-seed{seed}-{method}-T{steps}-{key}.{shard}of{shards}.tsv"
    conda:
        "../../environment.yml"
    threads: THREADS
    resources:
        mem_mb=each_try(4000 + CONFIG.compute.memory_mib),
        runtime=each_try(120),
    script:
        "../scripts/stage.py"


rule ideal:
    """Ideal quantised curve of a method, on one shard of the test images."""
    input:
        unpack(needs("ideal")),
    output:
        ideal="results/{experiment}/{weights}/seed{seed}/methods/{method}/ideal-{key}.{shard}of{shards}.parquet",
    log:
        "logs/ideal/{experiment}/{weights}-seed{seed}-{method}-{key}.{shard}of{shards}.log",
    benchmark:
        "logs/benchmarks/ideal/{experiment}/{weights}-seed{seed}-{method}-{key}.{shard}of{shards}.tsv"
    conda:
        "../../environment.yml"
    threads: THREADS
    resources:
        mem_mb=each_try(4000 + CONFIG.compute.memory_mib),
        runtime=each_try(120),
    script:
        "../scripts/stage.py"


rule find_switches:
    """Best switches for a network, by held-out training images."""
    input:
        unpack(needs("find_switches")),
    output:
        search="results/{experiment}/{weights}/seed{seed}/search-{key}.parquet",
        text="results/{experiment}/{weights}/seed{seed}/search-{key}.csv",
    log:
        "logs/find_switches/{experiment}/{weights}-seed{seed}-{key}.log",
    benchmark:
        "logs/benchmarks/find_switches/{experiment}/{weights}-seed{seed}-{key}.tsv"
    conda:
        "../../environment.yml"
    threads: THREADS
    resources:
        mem_mb=each_try(4000 + CONFIG.compute.memory_mib),
        runtime=720,
    script:
        "../scripts/stage.py"


rule find_exit:
    """Early exit of a network: its bound by held-out training images."""
    input:
        unpack(needs("find_exit")),
    output:
        exit="results/{experiment}/{weights}/seed{seed}/exit-{key}.parquet",
        text="results/{experiment}/{weights}/seed{seed}/exit-{key}.csv",
    log:
        "logs/find_exit/{experiment}/{weights}-seed{seed}-{key}.log",
    benchmark:
        "logs/benchmarks/find_exit/{experiment}/{weights}-seed{seed}-{key}.tsv"
    conda:
        "../../environment.yml"
    threads: THREADS
    resources:
        mem_mb=each_try(4000 + CONFIG.compute.memory_mib),
        runtime=720,
    script:
        "../scripts/stage.py"
