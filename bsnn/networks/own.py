"""Networks of one's own in the workflow: read from a user's Python file, kept as descriptions with their tensors."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bsnn import artifacts, config
from bsnn.errors import ArtifactError, BsnnError, ConfigError
from bsnn.graphs import plain
from bsnn.graphs.comparison import require_source
from bsnn.graphs.description import IMAGE, Graph
from bsnn.graphs.forward import forward
from bsnn.graphs.reading import from_module
from bsnn.networks.vgg import Trained

KIND = "network"  # the same as of the family: stages read either
STRUCTURE = "graph"  # its JSON, among the tensors: longer than what a file's document is for
EXAMPLE = 4  # images that the module is read with; logits are compared on all that are given


class Computed:
    """A description that is called as a module is, and moved as one."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def to(self, device: torch.device | str) -> Computed:
        """Move it, in place."""
        self.graph = self.graph.to(device)
        return self

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Logits [N, classes]."""
        return forward(self.graph, images)


@dataclass(frozen=True)
class OwnNetwork:
    """A network of one's own for evaluation and conversion, with what its images are like."""

    module: Computed
    classes: tuple[str, ...]
    mean: tuple[float, ...]  # normalisation of its images, of pixels in 0..1
    std: tuple[float, ...]

    @property
    def graph(self) -> Graph:
        """Its description."""
        return self.module.graph


def convertible(network: Trained | OwnNetwork) -> Trained | Graph:
    """What functions of the conversion take."""
    return network.graph if isinstance(network, OwnNetwork) else network


def kind(graph: Graph) -> config.Weights:
    """Binary, if all sums over spikes are of integers: every weight after the image and before the read-out."""
    paths = [path for layer in graph.layers[:-1] for path in layer.paths]
    inner = [path for path in paths if path.weight is not None and path.source != IMAGE]
    return "binary" if inner and all(path.binary for path in inner) else "full"


def read(settings: config.Own, images: Tensor, classes: int) -> Graph:
    """Run the user's file, build the network, load its weights, and read it.

    Args:
        settings: which file and function, and where the weights lie.
        images: normalised images of the data set, float32 [N, 3, height, width]; logits are compared on all of them.
        classes: of the data set.

    Raises:
        ConfigError: there is no such file or function.
        ArtifactError: the file, the function or the weights cannot be used.
        ConversionError: parts that no spiking network can have, or logits that differ.
    """
    module = _built(settings)
    if settings.weights is not None:
        _load(module, settings.weights)
    graph = from_module(module, images[:EXAMPLE])
    require_source(graph, images)
    found = graph.layers[-1].shape[0]
    if found != classes:
        raise ArtifactError(f"{settings.module}: the network has {found} outputs, and the data set {classes} classes")
    return graph


def _built(settings: config.Own) -> nn.Module:
    name, _, function = settings.module.rpartition(":")
    path = Path(name)
    if not path.is_file():
        raise ConfigError(f"{path.absolute()}: no such file; network.module must name the file that builds the network")
    spec = importlib.util.spec_from_file_location(f"_network_of_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    code = importlib.util.module_from_spec(spec)
    try:
        with _importing(path, code):
            spec.loader.exec_module(code)
            build = getattr(code, function, None)
            if not callable(build):
                raise ConfigError(f"{path}: has no function '{function}'; network.module must name one that it has")
            module = build()
    except BsnnError:
        raise
    except Exception as error:  # whatever the user's own code raises
        raise ArtifactError(
            f"{path}: {function}() failed ({type(error).__name__}: {error}); it must build the network, and is called "
            "without arguments"
        ) from error
    if not isinstance(module, nn.Module):
        raise ArtifactError(f"{path}: {function}() gives a {type(module).__name__}, expected a torch.nn.Module")
    return module.float().cpu().eval()


@contextmanager
def _importing(path: Path, code: Any) -> Iterator[None]:
    """What lies beside the file can be imported by it; classes find the module that they are of."""
    folder = str(path.parent.absolute())
    sys.path.insert(0, folder)
    sys.modules[code.__name__] = code
    try:
        yield
    finally:
        sys.path.remove(folder)


def _load(module: nn.Module, path: Path) -> None:
    from safetensors.torch import load_file

    if not path.is_file():
        raise ConfigError(f"{path.absolute()}: no such file; network.weights must name a safetensors file")
    try:
        state = load_file(path)
    except Exception as error:  # a damaged file, or one of another kind
        raise ArtifactError(
            f"{path}: not the weights of this network ({error}); save module.state_dict() with "
            "safetensors.torch.save_file"
        ) from error
    try:
        module.load_state_dict(state)
    except Exception as error:  # the state of another network, or what the user's own hooks raise
        faults = "; ".join(_differences(module.state_dict(), state)) or str(error)
        raise ArtifactError(f"{path}: not the weights of this network: {faults}") from error


def _differences(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    """How the names and shapes of a state are not a module's."""
    lacking, strange = [name for name in wanted if name not in found], [name for name in found if name not in wanted]
    shapes = [
        f"{name} is {list(found[name].shape)} in place of {list(wanted[name].shape)}"
        for name in wanted
        if name in found and found[name].shape != wanted[name].shape
    ]
    texts = [f"it lacks {_some(lacking)}"] if lacking else []
    texts += [f"it has {_some(strange)}, which the module has not"] if strange else []
    texts += [f"{_some(shapes)}"] if shapes else []
    # A wrapped module's names: each is a name of this one behind one and the same beginning.
    prefix = next((name.removesuffix(own) for name in strange[:1] for own in lacking if name.endswith(f".{own}")), "")
    if prefix and all(name.startswith(prefix) and name.removeprefix(prefix) in wanted for name in found):
        texts.append(
            f"all its names begin with '{prefix}', as those of a wrapped module do: save the inner module's state"
        )
    return texts


def _some(names: list[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def save(
    path: str | Path, network: OwnNetwork, identity: Mapping[str, Any], extra: Mapping[str, Any] | None = None
) -> None:
    """Write a network. `extra`: what else to note in its metadata.

    Raises:
        ArtifactError: the file cannot be written.
    """
    structure, tensors = plain.parts(network.graph)
    tensors[STRUCTURE] = torch.frombuffer(bytearray(json.dumps(structure).encode()), dtype=torch.uint8)
    note = {"classes": network.classes, "mean": network.mean, "std": network.std}
    artifacts.write_tensors(path, tensors, KIND, identity, {**(extra or {}), **note})


def load(path: str | Path, stands_for: Mapping[str, Any] | None = None) -> OwnNetwork:
    """Read a network that `save` wrote.

    Raises:
        ArtifactError: missing, damaged or foreign file; one of another identity; no network of one's own.
    """
    tensors, found = artifacts.read_tensors(path, KIND, stands_for)
    extra = found["extra"]
    try:
        graph = plain.graph_of(json.loads(bytes(tensors[STRUCTURE].tolist())), tensors)
        classes = tuple(str(name) for name in extra["classes"])
        mean, std = (tuple(float(value) for value in extra[name]) for name in ("mean", "std"))
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"{path}: no network of one's own ({error!r}); {artifacts.again(path)}") from error
    return OwnNetwork(Computed(graph), classes, mean, std)
