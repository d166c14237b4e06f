# Needs: a trained network, its activation table, and the data set (training images for corrections, test images).
# Makes, for each method of conversion, number of steps and shard of the test set:
#   results/{experiment}/{weights}/seed{seed}/methods/{method}/T{steps}/{predictions,spikes,operations,errors}-{key}...
# and from all of them results/{experiment}/tables/latency*.csv and figures/latency*.svg, noted in tables/latency.json;
# likewise search-{key} and exit-{key} of each network, and early_exit.csv and .svg of all.


localrules:
    latency_tables,
    latency_figures,
    exit_results,


rule method:
    """Method {wildcards.method}, {wildcards.steps} steps: {wildcards.experiment}, {wildcards.weights}, seed {wildcards.seed}."""
    input:
        activations=for_method,
        network=network_of,
        data=data_of,
    output:
        **{what: f"{METHOD}/{what}-{{key}}.{{shard}}of{{shards}}.parquet" for what in identity.METHOD_FILES},
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
        "../scripts/method.py"


rule latency_tables:
    """Methods of conversion of {wildcards.experiment}, side by side."""
    input:
        stale=stale("tables/latency.json", identity.latency),
        artifacts=for_latency,
    output:
        settings="results/{experiment}/tables/latency.json",
        table="results/{experiment}/tables/latency.csv",
    log:
        "logs/latency/{experiment}.tables.log",
    benchmark:
        "logs/benchmarks/latency/{experiment}.tables.tsv"
    conda:
        "../../environment.yml"
    script:
        "../scripts/latency_tables.py"


rule latency_figures:
    """Figures of methods of conversion of {wildcards.experiment}."""
    input:
        stale=stale("figures/latency.json", identity.latency),
        tables=after("figures/latency.json", "tables/latency.json", identity.latency),
    output:
        settings="results/{experiment}/figures/latency.json",
        accuracy="results/{experiment}/figures/latency.svg",
    log:
        "logs/latency/{experiment}.figures.log",
    benchmark:
        "logs/benchmarks/latency/{experiment}.figures.tsv"
    conda:
        "../../environment.yml"
    script:
        "../scripts/latency_figures.py"


rule find_switches:
    """Best switches for the {wildcards.weights} network of {wildcards.experiment}, by held-out training images."""
    input:
        activations=for_search,
        network=network_of,
        data=data_of,
    output:
        table="results/{experiment}/{weights}/seed{seed}/search-{key}.parquet",
        text="results/{experiment}/{weights}/seed{seed}/search-{key}.csv",
    log:
        "logs/search/{experiment}/{weights}-seed{seed}-{key}.log",
    benchmark:
        "logs/benchmarks/search/{experiment}/{weights}-seed{seed}-{key}.tsv"
    conda:
        "../../environment.yml"
    threads: THREADS
    resources:
        mem_mb=each_try(4000 + CONFIG.compute.memory_mib),
        runtime=720,
    params:
        stage="search",
    script:
        "../scripts/of_network.py"


rule find_exit:
    """Early exit of the {wildcards.weights} network of {wildcards.experiment}."""
    input:
        activations=for_exit,
        network=network_of,
        data=data_of,
    output:
        table="results/{experiment}/{weights}/seed{seed}/exit-{key}.parquet",
        text="results/{experiment}/{weights}/seed{seed}/exit-{key}.csv",
    log:
        "logs/exit/{experiment}/{weights}-seed{seed}-{key}.log",
    benchmark:
        "logs/benchmarks/exit/{experiment}/{weights}-seed{seed}-{key}.tsv"
    conda:
        "../../environment.yml"
    threads: THREADS
    resources:
        mem_mb=each_try(4000 + CONFIG.compute.memory_mib),
        runtime=720,
    params:
        stage="early_exit",
    script:
        "../scripts/of_network.py"


rule exit_results:
    """Early exit of {wildcards.experiment}: table and figures."""
    input:
        stale=stale("tables/early_exit.json", identity.early_exits),
        artifacts=for_exit_results,
    output:
        settings="results/{experiment}/tables/early_exit.json",
        table="results/{experiment}/tables/early_exit.csv",
        steps="results/{experiment}/figures/early_exit.svg",
        operations="results/{experiment}/figures/early_exit_operations.svg",
    log:
        "logs/exit/{experiment}.results.log",
    benchmark:
        "logs/benchmarks/exit/{experiment}.results.tsv"
    conda:
        "../../environment.yml"
    params:
        stage="exit_results",
    script:
        "../scripts/of_network.py"
