"""The description in the making: layers are added as ReLUs and pools are met."""

from __future__ import annotations

from itertools import chain, count

from bsnn.graphs.description import IMAGE, READOUT, Graph, Layer, Path, Pool
from bsnn.graphs.problems import UnsupportedError
from bsnn.graphs.sums import Output, Sum, Value


class Builder:
    """Collects layers.

    Args:
        input_shape: of one image.
    """

    def __init__(self, input_shape: tuple[int, ...]) -> None:
        self.input_shape = input_shape
        self.layers: list[Layer] = []
        self.label = ""  # of the operation that is being read

    @property
    def image(self) -> Output:
        """The image as a value."""
        return Output(IMAGE, self.input_shape, positive=False)

    def relu(self, value: Sum) -> Output:
        """End a sum with a ReLU; the layer is named after its first weights."""
        if value.flat:
            raise UnsupportedError("a ReLU on a flattened sum of a map", "flatten after the ReLU")
        weights = [path.name for path in value.paths if path.weight is not None]
        return self._add("relu", weights[0] if weights else self.label, value)

    def pool(self, source: Output, pool: Pool, shape: tuple[int, ...]) -> Output:
        """A pool of a layer's output, as a layer of its own; `shape` is the map's."""
        path = Path(source.source, "identity", self.label, pool=pool)
        return self._add(pool.kind, self.label, Sum((path,), None, shape))

    def _add(self, kind: str, wanted: str, value: Sum) -> Output:
        taken = {READOUT, *(layer.name for layer in self.layers)}
        labels = chain([wanted], (f"{wanted}.{number}" for number in count(2)))
        name = next(label for label in labels if label not in taken)
        self.layers.append(Layer(name, kind, value.paths, value.bias, value.shape))  # type: ignore[arg-type]
        return Output(name, value.shape)

    def finished(self, logits: Value) -> Graph:
        """The description, without layers that the logits do not depend on.

        Raises:
            UnsupportedError: logits that are no weighted sum of one layer's output.
        """
        if not isinstance(logits, Sum):
            raise UnsupportedError(
                "the result is what a ReLU, a pool or the image gives", "logits are a weighted sum: end with nn.Linear"
            )
        if logits.shape != (logits.shape[0],):
            raise UnsupportedError(
                f"the result is a map {list(logits.shape)} for each image",
                "pool and flatten it to one number per class",
            )
        sources = sorted({path.source for path in logits.paths})
        if len(sources) > 1 or sources == [IMAGE]:
            raise UnsupportedError(
                f"the logits are a sum over {', '.join(sources)}",
                "they are read from the spikes of one layer: put the sum before the last ReLU",
            )
        self._add("logits", "logits", logits)
        return Graph(tuple(self._needed()), self.input_shape)

    def _needed(self) -> list[Layer]:
        wanted = {self.layers[-1].name}
        kept: list[Layer] = []
        for layer in reversed(self.layers):
            if layer.name in wanted:
                wanted |= set(layer.sources)
                kept.append(layer)
        return kept[::-1]
