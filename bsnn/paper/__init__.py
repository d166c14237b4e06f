"""The paper's results: what each needs (plan), what was published, tables, figures and one report of all."""
