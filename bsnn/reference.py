"""Reference results: measured tables, kept in the repository with where they come from; pages quote them alone."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from bsnn import artifacts, provenance
from bsnn.config import Config, Experiment, Train
from bsnn.errors import ArtifactError
from bsnn.networks import files, shipped
from bsnn.networks.original_checkpoint import sha256
from bsnn.paper import write
from bsnn.paper.catalogue import CATALOGUE
from bsnn.pipeline import identity
from bsnn.pipeline.costs import closure
from bsnn.pipeline.job import Job
from bsnn.pipeline.model import RESULTS, Pipeline
from bsnn.pipeline.stage import Place
from bsnn.tables import SETTINGS, Results, latency
from bsnn.tables.early_exit import of_network
from bsnn.tables.origins import COLUMNS, SUMMED, merged, origin

KEPT = ("accuracy", "accuracy_over_time", "spikes_by_layer", "rates", "binary_summary", "training")
FOLDER = Path("results/reference")
DESCRIBED = (".parquet", ".safetensors")  # files that say how they were made


def keep(results: Results, command: str, folder: Path = FOLDER, root: Path = RESULTS) -> Path:
    """Copy an experiment's tables to the reference folder, with `origin.json` beside them; returns their folder.

    Tables of `snakemake latency`, `search`, `early_exit` and `paper` come too, where they were made.

    Args:
        results: tables, as bsnn.tables.read gives them.
        command: what was run, with which the numbers can be reproduced.
        folder: the reference folder.
        root: folder of all results.

    Raises:
        ArtifactError: a table is damaged, or of other settings.
    """
    config, name, place = results.config, results.name, folder / results.name
    kept = provenance.collect()  # before the checkout is changed
    frames = {table: results[table] for table in KEPT if table in results.frames}
    pipeline = Pipeline(config.model_copy(update={"run": [name]}), root)
    frames |= _methods(pipeline, name)
    paper, origins = _of_paper(pipeline, name)
    for former in (*place.glob("*.csv"), *place.glob("paper/*.csv")):  # of another origin
        former.unlink()
    for table, frame in frames.items():
        artifacts.write_csv(place / f"{table}.csv", frame)
    for file in paper:
        artifacts.copy(file, place / "paper" / file.name)
    about = {
        "command": command,
        "seeds": list(config.seeds),
        "definition": _definition(config, name),
        "settings": results.identity,
        "made": _made(results, pipeline, [*frames, *(("paper",) if paper else ())], origins),
        "kept": kept,
    }
    artifacts.write_text(place / "origin.json", json.dumps(about, indent=2, default=str) + "\n")
    return place


def keep_network(job: Job, folder: Path = FOLDER) -> Path:
    """Copy a trained network to the reference folder, with its card and its history beside it; returns its path there.

    Args:
        job: the network's configuration, experiment, kind and seed.
        folder: the reference folder.

    Raises:
        ArtifactError: the network or its history is missing or damaged, of other settings, another experiment's,
            or was imported.
    """
    experiment, place, pipeline = job.experiment, job.place, job.pipeline
    if owner := experiment.networks_of:
        raise ArtifactError(
            f"{place.experiment}: its networks are those of {owner}; keep them there with: bsnn keep-network {owner}"
        )
    if experiment.given(place.weights):
        raise ArtifactError(
            f"{place.experiment}: its {place.weights} network was imported; keep it under the one it is from"
        )
    path = pipeline.path("network", place)
    _, found = artifacts.read_tensors(path, files.KIND, pipeline.identity("network", place))
    if "precision" not in found["extra"]:  # a key may be older than this note
        raise ArtifactError(f"{path}: does not say in which precision it was trained; delete it and train it again")
    history, _ = pipeline.read("network", place, "history")
    recipe = experiment.train if place.weights == "full" else experiment.binarize
    made = found["provenance"]
    card = shipped.Card(
        experiment=place.experiment,
        weights=place.weights,
        seed=place.seed,
        test_accuracy=found["extra"]["test_accuracy"],
        test_images=len(job.data_set().test),
        epochs=len(history),
        hours=round(sum(history["seconds"].to_pylist()) / 3600, 2),
        precision=found["extra"]["precision"],
        sha256=sha256(path),
        bytes=path.stat().st_size,
        data={**_data(experiment), "licence": shipped.LICENCES.get(experiment.data.name, "unknown: ask its owner")},
        network=identity.canonical(experiment.network),
        recipe=_recipe(recipe),
        **{name: made[name] for name in ("hardware", "versions", "revision", "created")},
    )
    kept = shipped.keep(card, path, folder)
    artifacts.write_csv(kept.with_name(f"{place.weights}_history.csv"), history.to_pandas())
    return kept


def _recipe(recipe: Train) -> dict[str, Any]:
    """Settings of a training, except where the network lies that it started from."""
    settings = identity.canonical(recipe)
    return settings | ({"start": settings["start"]["sha256"]} if settings.get("start") else {})


def _data(experiment: Experiment) -> dict[str, Any]:
    """Settings of the data set, except where it lies."""
    settings = identity.canonical(experiment.data)
    return {name: value for name, value in settings.items() if name not in ("path", "labels")}


def _definition(config: Config, name: str) -> dict[str, Any]:
    """The experiment's settings, except where its data lie."""
    return identity.canonical(config.experiments[name]) | {"data": _data(config.experiments[name])}


def _made(
    results: Results, pipeline: Pipeline, tables: Collection[str], of_paper: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Rows of the artifacts behind the tables: those of `origins`, and in their manner those of other targets."""
    known: list[Any] = results["origins"].to_dict(orient="records")
    listed = {row["key"] for row in known}
    targets = [target for target in ("latency", "search", "early_exit", "paper") if target in tables]
    rows = []
    for rule, place in dict.fromkeys(one for target in targets for one in closure(pipeline, target)):
        path = next((path for path in pipeline.files(rule, place) if path.suffix in DESCRIBED), None)
        if pipeline.key(rule, place) in listed or path is None or not path.exists():
            continue
        document, stage = artifacts.describe(path), pipeline.stage(rule, place)
        over = {name: getattr(place, name) for name in stage.over if name != "shard"}
        own = {"weights": stage.weights, "shards": 1} if stage.weights else {"shards": 1}
        rows.append({**origin(document["identity"], document, over), **own})
    if rows:
        found = pd.DataFrame(rows).astype({name: COLUMNS[name] for name in SUMMED})
        more = merged(found.convert_dtypes()).astype(object)
        known += more.where(more.notna(), None).to_dict(orient="records")
    listed = {row["key"] for row in known}
    return known + [row for row in of_paper if row["key"] not in listed]  # of other experiments beside it


def _of_paper(pipeline: Pipeline, name: str) -> tuple[list[Path], list[Any]]:
    """The paper's results that were made under the settings at hand: files, and a row for each stage behind them."""
    folder = pipeline.root / name / "paper"
    files: list[Path] = []
    rows: list[Any] = []
    for place in pipeline.places("paper_result", name):
        for note in folder.glob(f"{place.result}-*.json"):
            stands_for = _shown_together(pipeline.identity("paper_result", place), artifacts.read_note(note))
            if not note.name.startswith(f"{place.result}-{identity.key(stands_for)}"):
                continue  # of other settings
            frames = write.read(pipeline, place, folder, stands_for)
            files += [folder / f"{table}.csv" for table in CATALOGUE[place.result].tables]
            known = frames.get(f"{place.result}-{write.ORIGINS}", pd.DataFrame()).astype(object)
            rows += known.where(known.notna(), None).to_dict(orient="records")
    return [file for file in files if file.exists()], rows


def _shown_together(own: Mapping[str, Any], note: Mapping[str, Any]) -> dict[str, Any]:
    """Identity of a result with the experiments of the same networks that its tables have too, as their note says."""
    return {**own, "parts": {**note["parts"], **own["parts"]}} if "parts" in own else dict(own)


def _methods(pipeline: Pipeline, name: str) -> dict[str, pd.DataFrame]:
    """Tables of the methods of conversion, of the search and of early exit, where they exist."""
    found, folder = {}, pipeline.root / name / "tables"
    if (folder / f"{latency.TABLES[0]}.parquet").exists():
        try:
            tables = latency.load(folder, pipeline.identity("latency_tables", Place(name)))
        except ArtifactError as error:  # a change of methods or their times alone makes no other table anew
            raise ArtifactError(
                f"{error}. If the methods changed since {folder / SETTINGS} was written, delete that file instead and "
                "run again: snakemake all latency"
            ) from error
        found = {table: tables[table] for table in ("latency", "latency_costs", "latency_errors", "latency_ideal")}
    for table, stage in {"search": "find_switches", "early_exit": "find_exit"}.items():
        places = [place for place in pipeline.places(stage, name) if pipeline.path(stage, place).exists()]
        parts = [of_network(pipeline, stage, place) for place in places]
        found |= {table: pd.concat(parts, ignore_index=True)} if parts else {}
    return found
