# Functions that the rules share: the checked configuration, the paths that carry keys, and the targets.
# A path's key stands for all settings that its content depends on (bsnn/pipeline/identity.py). Inputs are `ancient`:
# whether a job runs is decided by missing paths alone, never by file times.

import sys
from functools import partial
from itertools import product
from pathlib import Path

from snakemake.exceptions import WorkflowError

sys.path.insert(0, str(workflow.basedir))

from bsnn import config as settings
from bsnn.cluster import signals
from bsnn.pipeline import identity
from bsnn.errors import ConfigError
from bsnn.paper import plan

try:
    CONFIG = settings.validate(config)
except ConfigError as error:
    raise WorkflowError(str(error)) from None

signals.within_step()

PATHS = identity.Paths(CONFIG)
THREADS = CONFIG.compute.threads
METHOD = "results/{experiment}/{weights}/seed{seed}/methods/{method}/T{steps}"


wildcard_constraints:
    experiment="|".join(CONFIG.experiments),
    weights="full|binary",
    seed=r"\d+",
    percentile=r"\d+(\.\d+)?",
    key=f"[0-9a-f]{{{identity.KEY_LENGTH}}}",
    shard=r"\d+",
    shards=r"\d+",
    method="[A-Za-z0-9][A-Za-z0-9_-]*",
    steps=r"\d+",


def each_try(amount):
    """Memory or time that grows with each try of a job."""
    return lambda w, attempt: amount * attempt


def where(w):
    """Experiment, kind of network, seed and percentile that the wildcards name, as identity.Paths takes them."""
    wildcards = dict(w.items())
    place = [wildcards["experiment"]]
    place += [wildcards["weights"]] if "weights" in wildcards else []
    place += [int(wildcards["seed"])] if "seed" in wildcards else []
    place += [float(wildcards["percentile"])] if "percentile" in wildcards else []
    return place


def named(path, w):
    """Refuse a key that is not the current settings': what it stands for is not known here."""
    if w.key not in Path(path).name:
        raise WorkflowError(
            f"key {w.key} does not belong to the current settings, whose file is {path}. Ask for that file, or restore "
            "the settings (`bsnn describe FILE` tells what the key of an existing file stands for)."
        )


def data_of(w):
    return ancient(str(PATHS.data(w.experiment)))


def network_of(w):
    return ancient(str(PATHS.network(*where(w)[:3])))


def for_data(w):
    """The data set needs no artifact, but what its settings name; asked for only where the data set is to be made."""
    name = experiment_of_data(w)
    named(PATHS.data(name), w)
    settings = CONFIG.experiments[name].data
    for setting, path in (("path", settings.path), ("labels", settings.labels)):
        if path is not None and not path.exists() and not PATHS.data(name).exists():
            raise WorkflowError(
                f"experiments.{name}.data.{setting}: {path.absolute()} does not exist; set it to where the data lie, as "
                "this machine sees them"
            )
    return []


def experiment_of_data(w):
    running_first = [*CONFIG.run, *CONFIG.experiments]
    for name in sorted(running_first, key=lambda one: CONFIG.experiments[one].data.path is None):
        if PATHS.data(name).name == f"{w.data}-{w.key}.{w.suffix}":
            return name
    raise WorkflowError(f"no experiment of the current settings uses data set {w.data} with key {w.key}")


def for_train(w):
    named(PATHS.network(w.experiment, "full", int(w.seed)), w)
    return data_of(w)


def for_binarize(w):
    named(PATHS.network(w.experiment, "binary", int(w.seed)), w)
    if CONFIG.experiments[w.experiment].imported.binary is not None:
        return []
    return ancient(str(PATHS.network(w.experiment, "full", int(w.seed))))


def for_activations(w):
    named(PATHS.activations(*where(w)), w)
    return network_of(w)


def for_thresholds(w):
    named(PATHS.thresholds(*where(w)), w)
    return ancient(str(PATHS.activations(*where(w)[:3])))


def for_simulate(w):
    path = PATHS.predictions(*where(w), int(w.shard))
    named(path, w)
    if not path.stem.endswith(f"of{w.shards}"):
        raise WorkflowError(f"{w.shards} shards are not the current setting, whose file is {path}")
    return ancient(str(PATHS.thresholds(*where(w))))


def experiments_of(names):
    """All (experiment, kind, seed) of some experiments, or of those that run."""
    return product(names, CONFIG.weights, CONFIG.seeds)


def trained_networks():
    return [str(PATHS.network(*place)) for place in experiments_of(CONFIG.run)]


def activation_tables():
    return [str(PATHS.activations(*place)) for place in experiments_of(CONFIG.run)]


def threshold_tables():
    return [str(PATHS.thresholds(*place, p)) for place in experiments_of(CONFIG.run) for p in CONFIG.percentile]


def shards_of(names):
    for place in experiments_of(names):
        count = CONFIG.experiments[place[0]].simulation.shards
        yield from ((*place, p, shard) for p in CONFIG.percentile for shard in range(1, count + 1))


def simulations():
    return [str(path(*shard)) for shard in shards_of(CONFIG.run) for path in (PATHS.predictions, PATHS.spikes)]


def reports():
    return [f"results/{name}/report.html" for name in CONFIG.run]


def for_results(w):
    """Everything that tables, figures and report read."""
    full_needed = "binary" in CONFIG.weights
    networks = [place for place in experiments_of([w.experiment])]
    files = [path(*place) for place in networks for path in (PATHS.network, PATHS.history, PATHS.activations)]
    files += [PATHS.summary(w.experiment, seed) for seed in CONFIG.seeds if full_needed]
    files += [PATHS.thresholds(*place, p) for place in networks for p in CONFIG.percentile]
    files += [path(*shard) for shard in shards_of([w.experiment]) for path in (PATHS.predictions, PATHS.spikes)]
    return [ancient(str(path)) for path in files]


def method_files(w, what, method, steps, shard):
    return str(PATHS.method(what, *where(w)[:3], method, int(steps), int(shard)))


def for_method(w):
    settings = CONFIG.experiments[w.experiment].latency
    if w.method not in settings.names_for(w.weights) or int(w.steps) not in settings.runs(w.method):
        raise WorkflowError(f"experiments.{w.experiment}.latency has no method {w.method} for {w.steps} steps")
    path = method_files(w, "predictions", w.method, w.steps, w.shard)
    named(path, w)
    if not path.endswith(f"of{w.shards}.parquet"):
        raise WorkflowError(f"{w.shards} shards are not the current setting, whose file is {path}")
    return ancient(str(PATHS.activations(*where(w)[:3])))


def for_latency(w):
    """Every method of every network of an experiment."""
    settings, shards = CONFIG.experiments[w.experiment].latency, CONFIG.experiments[w.experiment].simulation.shards
    every = product(range(1, shards + 1), identity.METHOD_FILES)
    runs = [
        (*place, method, steps)
        for place in experiments_of([w.experiment])
        for method in settings.names_for(place[1])
        for steps in settings.runs(method)
    ]
    return [ancient(str(PATHS.method(what, *run, shard))) for run, (shard, what) in product(runs, list(every))]


def for_search(w):
    named(PATHS.search(*where(w)), w)
    return ancient(str(PATHS.activations(*where(w))))


def for_exit(w):
    named(PATHS.early_exit(*where(w)), w)
    return ancient(str(PATHS.activations(*where(w))))


def for_exit_results(w):
    return [ancient(str(PATHS.early_exit(*place))) for place in experiments_of([w.experiment])]


def of_networks(path):
    """A file of each network of the experiments that run."""
    return [str(path(*place)) for place in experiments_of(CONFIG.run)]


def latency_results():
    return [f"results/{name}/{file}" for name in CONFIG.run for file in ("tables/latency.csv", "figures/latency.svg")]


def exit_results():
    return [
        f"results/{name}/{file}" for name in CONFIG.run for file in ("tables/early_exit.csv", "figures/early_exit.svg")
    ]


def notes_other(name, noting, of):
    """Whether a file of an experiment is there and notes another key than the current settings'.

    Tables, figures and report lie at plain names, so a changed setting is no missing file; each notes the key that it
    was made for.
    """
    file = Path("results", name, noting)
    return file.is_file() and identity.key(of(CONFIG, name)) not in file.read_text()


def stale(noting, of=identity.results):
    """Input function: a stamp that is newer than what must be made anew; nothing where `noting` is current.

    Stamps are written at once, before Snakemake looks which files there are, and hold the key that is wanted: content
    that an earlier run saw would count as unchanged.
    """
    stamps = {}
    for name in CONFIG.experiments:
        if notes_other(name, noting, of):
            stamps[name] = Path("results", name, "-".join([".stale", *Path(noting).parts]))
            stamps[name].write_text(identity.key(of(CONFIG, name)))

    return lambda w: [str(stamps[w.experiment])] if w.experiment in stamps else []


def after(noting, file, of=identity.results):
    """Input function: a file of results that comes before; its age counts only where `noting` is not current."""

    def file_before(w):
        path = f"results/{w.experiment}/{file}"
        return path if notes_other(w.experiment, noting, of) else ancient(path)

    return file_before


def paper_results(w, result):
    """A result of the paper, of the experiments that run and have it."""
    names = [name for name in CONFIG.run if result in plan.results_of(CONFIG, name)]
    if not names:
        raise WorkflowError(f"no experiment of `run` has the result {result}: set experiments.NAME.ablation to true")
    return [f"results/{name}/paper/{result}.json" for name in names]


def for_paper(w, result):
    """Artifacts behind a result of the paper."""
    needed = plan.simulated(CONFIG, w.experiment, result)
    files = []
    for name in {w.experiment: None, **needed}:
        networks = list(experiments_of([name]))
        files += [path(*place) for place in networks for path in (PATHS.network, PATHS.history)]
        shards = range(1, CONFIG.experiments[name].simulation.shards + 1)
        for percentile, place in product(needed.get(name, []), networks):
            files += [PATHS.activations(*place), PATHS.thresholds(*place, percentile)]
            files += [path(*place, percentile, n) for n in shards for path in (PATHS.predictions, PATHS.spikes)]
    return [ancient(str(path)) for path in dict.fromkeys(files)]


def paper_before(result):
    """Input function: a result of the paper, where the experiment has it."""
    before = after("paper.html", f"paper/{result}.json", plan.report_identity)
    return lambda w: before(w) if result in plan.results_of(CONFIG, w.experiment) else []
