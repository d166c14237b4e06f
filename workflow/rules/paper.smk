# Needs: for each result of the paper, the simulations that bsnn/paper/plan.py names, of one experiment or several.
# Makes: results/{experiment}/paper/ (tables as CSV, Markdown, LaTeX; figures as SVG, PNG; RESULT.json notes what they are
# of), and results/{experiment}/paper.html. Targets: paper, and paper_RESULT for each result.


for _result in plan.RESULTS:

    rule:
        name:
            f"make_paper_{_result}"
        input:
            stale=stale(f"paper/{_result}.json", partial(plan.identity, result=_result)),
            artifacts=partial(for_paper, result=_result),
        output:
            f"results/{{experiment}}/paper/{_result}.json",
        log:
            f"logs/paper/{{experiment}}.{_result}.log",
        benchmark:
            f"logs/benchmarks/paper/{{experiment}}.{_result}.tsv"
        conda:
            "../../environment.yml"
        resources:
            mem_mb=4000,
            runtime=60,
        params:
            result=_result,
        script:
            "../scripts/paper.py"

    rule:
        name:
            f"paper_{_result}"
        input:
            partial(paper_results, result=_result),


rule paper_report:
    """The paper's results for {wildcards.experiment}, in one HTML file that needs nothing beside it."""
    input:
        stale("paper.html", plan.report_identity),
        **{result: paper_before(result) for result in plan.RESULTS},
    output:
        "results/{experiment}/paper.html",
    log:
        "logs/paper/{experiment}.report.log",
    benchmark:
        "logs/benchmarks/paper/{experiment}.report.tsv"
    conda:
        "../../environment.yml"
    params:
        result="report",
    script:
        "../scripts/paper.py"


rule paper:
    input:
        [f"results/{name}/paper.html" for name in CONFIG.run],
