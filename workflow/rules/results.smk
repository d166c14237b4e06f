# Needs: networks, histories, activation tables, thresholds and all simulations of an experiment.
# Makes: results/{experiment}/tables/ (CSV, Parquet, Markdown), figures/ (SVG, PNG) and report.html, at plain names.
# They are made anew when the settings that they show changed; see `stale` in common.smk.


localrules:
    tables,
    figures,
    report,


rule tables:
    """Tables of {wildcards.experiment}."""
    input:
        stale=stale("tables/settings.json"),
        artifacts=for_results,
    output:
        settings="results/{experiment}/tables/settings.json",
        accuracy=report(
            "results/{experiment}/tables/accuracy.csv",
            caption="../report/accuracy.rst",
            category="Accuracy",
        ),
    log:
        "logs/tables/{experiment}.log",
    benchmark:
        "logs/benchmarks/tables/{experiment}.tsv"
    conda:
        "../../environment.yml"
    script:
        "../scripts/tables.py"


rule figures:
    """Figures of {wildcards.experiment}."""
    input:
        stale=stale("figures/settings.json"),
        tables=after("figures/settings.json", "tables/settings.json"),
    output:
        settings="results/{experiment}/figures/settings.json",
        accuracy=report(
            "results/{experiment}/figures/accuracy_over_time.svg",
            caption="../report/accuracy_over_time.rst",
            category="Accuracy",
        ),
    log:
        "logs/figures/{experiment}.log",
    benchmark:
        "logs/benchmarks/figures/{experiment}.tsv"
    conda:
        "../../environment.yml"
    script:
        "../scripts/figures.py"


rule report:
    """Report of {wildcards.experiment}: one HTML file that needs nothing beside it."""
    input:
        stale=stale("report.html"),
        tables=after("report.html", "tables/settings.json"),
        figures=after("report.html", "figures/settings.json"),
    output:
        "results/{experiment}/report.html",
    log:
        "logs/report/{experiment}.log",
    benchmark:
        "logs/benchmarks/report/{experiment}.tsv"
    conda:
        "../../environment.yml"
    script:
        "../scripts/report.py"
