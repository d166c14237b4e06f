# Needs: networks, histories, activation tables, thresholds and all simulations of an experiment.
# Makes: results/{experiment}/tables/ (CSV, Parquet, Markdown), figures/ (SVG, PNG) and report.html, at plain names. Beside
# them lies a note whose name carries the key of what they show: it is the output, and a changed setting is a missing note.


localrules:
    tables,
    figures,
    report,


rule tables:
    """Tables of {wildcards.experiment}."""
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
    """Figures of {wildcards.experiment}."""
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
    """Report of {wildcards.experiment}: one HTML file that needs nothing beside it."""
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
