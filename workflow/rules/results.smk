# What people read: tables (CSV, Parquet, Markdown), figures (SVG, PNG) and HTML reports, at plain names. Beside them lies
# a note whose name carries the key of what they show. It is the output: a changed setting is a missing note.


localrules:
    tables,
    figures,
    report,
    latency_tables,
    latency_figures,
    exit_results,
    shown,


rule tables:
    """Tables of an experiment."""
    input:
        unpack(needs("tables")),
    output:
        note="results/{experiment}/tables/results-{made}.json",
    log:
        "logs/tables/{experiment}/{made}.log",
    benchmark:
        "logs/benchmarks/tables/{experiment}/{made}.tsv"
    conda:
        "../../environment.yml"
    script:
        "../scripts/stage.py"


rule figures:
    """Figures of an experiment."""
    input:
        unpack(needs("figures")),
    output:
        note="results/{experiment}/figures/results-{made}.json",
    log:
        "logs/figures/{experiment}/{made}.log",
    benchmark:
        "logs/benchmarks/figures/{experiment}/{made}.tsv"
    conda:
        "../../environment.yml"
    script:
        "../scripts/stage.py"


rule report:
    """Report of an experiment: one HTML file that needs nothing beside it."""
    input:
        unpack(needs("report")),
    output:
        note="results/{experiment}/report-{made}.json",
    log:
        "logs/report/{experiment}/{made}.log",
    benchmark:
        "logs/benchmarks/report/{experiment}/{made}.tsv"
    conda:
        "../../environment.yml"
    script:
        "../scripts/stage.py"


rule latency_tables:
    """Tables of all methods of conversion, side by side."""
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
    """Figures of the methods of conversion."""
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


rule exit_results:
    """Early exit of all networks of an experiment: table and figures."""
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


rule paper_result:
    """One result of the paper, for an experiment."""
    input:
        unpack(needs("paper_result")),
    output:
        note="results/{experiment}/paper/{result}-{made}.json",
    log:
        "logs/paper_result/{experiment}/{result}-{made}.log",
    benchmark:
        "logs/benchmarks/paper_result/{experiment}/{result}-{made}.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=4000,
        runtime=60,
    script:
        "../scripts/stage.py"


rule paper_report:
    """The paper's results for an experiment, in one HTML file that needs nothing beside it."""
    input:
        unpack(needs("paper_report")),
    output:
        note="results/{experiment}/paper-{made}.json",
    log:
        "logs/paper_report/{experiment}/{made}.log",
    benchmark:
        "logs/benchmarks/paper_report/{experiment}/{made}.tsv"
    conda:
        "../../environment.yml"
    script:
        "../scripts/stage.py"


rule shown:
    """A file at a plain name, asked for by it. The job of its note writes it."""
    input:
        vouching,
    output:
        update("results/{experiment}/{shown}"),


rule paper:
    input:
        files_of("paper"),


rule paper_accuracy:
    input:
        files_of("paper_accuracy"),


rule paper_time:
    input:
        files_of("paper_time"),


rule paper_pooling:
    input:
        files_of("paper_pooling"),


rule paper_activity:
    input:
        files_of("paper_activity"),


rule paper_operations:
    input:
        files_of("paper_operations"),


rule paper_latency:
    input:
        files_of("paper_latency"),


rule paper_hyperparameters:
    input:
        files_of("paper_hyperparameters"),
