"""What `snakemake` shows on the console: what runs and what is reused, progress, and at the end the answer.

Snakemake itself is not imported: workflow/rules/console.smk hands its workflow over (see `handler.attach`).
"""
