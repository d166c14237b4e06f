# Needs: for each result of the paper, the simulations that bsnn/paper/plan.py names, of one experiment or several.
# Makes: results/{experiment}/paper/ (tables as CSV, Markdown, LaTeX; figures as SVG, PNG), and results/{experiment}/paper.html;
# beside each result, and the report, a keyed note. Targets: paper, and paper_RESULT for each result.


rule paper_result:
    """Result {wildcards.result} of the paper, for {wildcards.experiment}."""
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
    """The paper's results for {wildcards.experiment}, in one HTML file that needs nothing beside it."""
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
