# Needs: networks, histories, activation tables, thresholds and all simulations of an experiment.
# Makes: results/{experiment}/tables/ (CSV, Parquet, Markdown), figures/ (SVG, PNG) and report.html, at plain names.
# They are made anew when the settings that they show changed; see `stale` in common.smk.


localrules:
    settings,
    tables,
    figures,
    report,


rule settings:
    """Settings that the tables, figures and report of {wildcards.experiment} are made for."""
    output:
        temp("results/{experiment}/settings-{key}.json"),
    log:
        "logs/settings/{experiment}-{key}.log",
    conda:
        "../../environment.yml"
    script:
        "../scripts/settings.py"


rule tables:
    """Tables of {wildcards.experiment}."""
    input:
        settings=stale("tables"),
        artifacts=for_results,
    output:
        key="results/{experiment}/tables/.key",
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
        settings=stale("figures"),
        tables=lambda w: ancient(f"results/{w.experiment}/tables/.key"),
    output:
        key="results/{experiment}/figures/.key",
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
        settings=stale("report"),
        tables=lambda w: ancient(f"results/{w.experiment}/tables/.key"),
        figures=lambda w: ancient(f"results/{w.experiment}/figures/.key"),
    output:
        key="results/{experiment}/report/.key",
        report="results/{experiment}/report.html",
    log:
        "logs/report/{experiment}.log",
    benchmark:
        "logs/benchmarks/report/{experiment}.tsv"
    conda:
        "../../environment.yml"
    script:
        "../scripts/report.py"
