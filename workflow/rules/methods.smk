# Needs: a trained network, its activation table, and the data set (training images for corrections, test images); where
# a simulation at a percentile already shows what a method gives, that simulation.
# Makes, for each method of conversion, number of steps and shard of the test set: predictions, spikes, operations, errors.
# From all of them tables/latency*.csv and figures/latency*.svg; likewise search and exit of each network, and
# tables/early_exit.csv and figures/early_exit*.svg of all. What lies at plain names has a keyed note beside it.


localrules:
    latency_tables,
    latency_figures,
    exit_results,


rule method:
    """Method {wildcards.method}, {wildcards.steps} steps: {wildcards.experiment}, {wildcards.weights}, seed {wildcards.seed}."""
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


rule latency_tables:
    """Methods of conversion of {wildcards.experiment}, side by side."""
    input:
        unpack(needs("latency_tables")),
    output:
        note="results/{experiment}/tables/latency-{made}.json",
    log:
        "logs/latency_tables/{experiment}/{made}.log",
    benchmark:
        "logs/benchmarks/latency_tables/{experiment}/{made}.tsv"
    conda:
        "../../environment.yml"
    script:
        "../scripts/stage.py"


rule latency_figures:
    """Figures of methods of conversion of {wildcards.experiment}."""
    input:
        unpack(needs("latency_figures")),
    output:
        note="results/{experiment}/figures/latency-{made}.json",
    log:
        "logs/latency_figures/{experiment}/{made}.log",
    benchmark:
        "logs/benchmarks/latency_figures/{experiment}/{made}.tsv"
    conda:
        "../../environment.yml"
    script:
        "../scripts/stage.py"


rule find_switches:
    """Best switches for the {wildcards.weights} network of {wildcards.experiment}, by held-out training images."""
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
    """Early exit of the {wildcards.weights} network of {wildcards.experiment}."""
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


rule exit_results:
    """Early exit of {wildcards.experiment}: table and figures."""
    input:
        unpack(needs("exit_results")),
    output:
        note="results/{experiment}/tables/early_exit-{made}.json",
    log:
        "logs/exit_results/{experiment}/{made}.log",
    benchmark:
        "logs/benchmarks/exit_results/{experiment}/{made}.tsv"
    conda:
        "../../environment.yml"
    script:
        "../scripts/stage.py"
