"""The VGG family of the paper: 3x3 convolutions and linear layers without bias or batch norm, 2x2 pools, ReLU.

One builder makes all members: average or maximum pooling, before or after the ReLU. `plan` describes a member layer
by layer; `VGG.forward` shows each layer's activations to an observer, under the names that thresholds are given for.
`Trained.graph` is the description of a trained member (bsnn.graphs), which conversion and accounts read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn

from bsnn import config
from bsnn.errors import BsnnError
from bsnn.graphs.description import IMAGE, Graph, Layer, Path, Pool
from bsnn.graphs.forward import Observer
from bsnn.networks import columns


@dataclass(frozen=True)
class LayerPlan:
    """One weight layer and what follows it."""

    name: str  # conv1, conv2, ..., fc1, ...
    op: Literal["conv", "linear"]
    inputs: int  # input channels or units
    outputs: int  # output channels or units
    unpooled: tuple[int, ...]  # output shape of one image before the pool
    shape: tuple[int, ...]  # output shape of one image after the pool
    pool: Literal["average", "max"] | None
    place: Literal["before", "after"]

    @property
    def weights(self) -> int:
        """Number of weights."""
        return self.inputs * self.outputs * (9 if self.op == "conv" else 1)

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one image, borders counted as if they were inside."""
        places = self.unpooled[1] * self.unpooled[2] if self.op == "conv" else 1
        return self.weights * places


def plan(network: config.Network, input_shape: tuple[int, int, int], classes: int) -> tuple[LayerPlan, ...]:
    """Layers of a member of the family, from input to read-out.

    Args:
        network: settings of the member.
        input_shape: channels, height and width of an image.
        classes: outputs of the last layer.
    """
    channels, height, width = input_shape
    layers: list[LayerPlan] = []
    items = list(network.features)
    for index, item in enumerate(items):
        if item == "P":
            continue
        pooled = items[index + 1 : index + 2] == ["P"]
        outputs = int(item)
        unpooled = (outputs, height, width)
        height, width = (height // 2, width // 2) if pooled else (height, width)
        kind = network.pool if pooled else None
        name = f"conv{len(layers) + 1}"
        shape = (outputs, height, width)
        layers.append(LayerPlan(name, "conv", channels, outputs, unpooled, shape, kind, network.place))
        channels = outputs
    units = channels * height * width
    for number, outputs in enumerate([*network.hidden, classes], 1):
        layers.append(LayerPlan(f"fc{number}", "linear", units, outputs, (outputs,), (outputs,), None, "before"))
        units = outputs
    return tuple(layers)


class VGG(nn.Module):
    """A member of the family. Children are named as in its plan, so that `conv3.weight` is the third convolution's."""

    def __init__(self, network: config.Network, input_shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        self.plan = plan(network, input_shape, classes)
        self.input_shape = input_shape
        self.dropout = nn.Dropout(network.dropout)
        for layer in self.plan:
            conv = layer.op == "conv"
            module = (
                nn.Conv2d(layer.inputs, layer.outputs, 3, padding=1, bias=False)
                if conv
                else nn.Linear(layer.inputs, layer.outputs, bias=False)
            )
            _initialise(module.weight, network.init, conv)
            self.add_module(layer.name, module)

    def forward(self, images: Tensor, observe: Observer | None = None) -> Tensor:
        """Logits [N, classes] of normalised images [N, channels, height, width].

        `observe` is called with the name and the activations of each layer whose neurons will spike.
        """
        return self.from_first_current(self.current(self.plan[0], images), observe)

    def from_first_current(self, current: Tensor, observe: Observer | None = None) -> Tensor:
        """As `forward`, with what the first layer's ReLU gets computed elsewhere (bsnn.conversion.currents)."""
        first, *inner = self.plan[:-1]
        x = self.activate(first, current, observe)
        for layer in inner:
            x = self.activate(layer, self.current(layer, x), observe)
        logits: Tensor = self.get_submodule(self.plan[-1].name)(x.flatten(1))
        return logits

    def current(self, layer: LayerPlan, x: Tensor) -> Tensor:
        """What the ReLU of a layer gets for the layer's input: the weighted sum, after a pool that comes before it."""
        x = self.weighted(layer, x)
        return pooled(x, layer) if layer.place == "before" else x

    def weighted(self, layer: LayerPlan, x: Tensor) -> Tensor:
        """Weighted sum of a layer's input."""
        module = self.get_submodule(layer.name)
        if layer.op == "conv" and columns.pay(x):
            return columns.convolution(x, cast(Tensor, module.weight))
        result: Tensor = module(x if layer.op == "conv" else x.flatten(1))  # by which `torch.export` names it
        return result

    def activate(self, layer: LayerPlan, x: Tensor, observe: Observer | None = None) -> Tensor:
        """Input of the next layer: ReLU, the pool if it comes after, dropout; observed where neurons will be."""
        x = torch.relu(x)
        if observe is not None:
            observe(layer.name, x)
        if layer.pool is not None and layer.place == "after":
            x = pooled(x, layer)
            if observe is not None and layer.pool == "average":
                observe(f"{layer.name}.pool", x)
        dropped: Tensor = self.dropout(x) if layer.pool is None or layer.name == self._last_convolution else x
        return dropped

    @property
    def _last_convolution(self) -> str:
        return [layer.name for layer in self.plan if layer.op == "conv"][-1]


def pooled(x: Tensor, layer: LayerPlan) -> Tensor:
    """A layer's 2x2 pool of [N, channels, height, width], if it has one.

    A single pixel stays as it is: recipes may train on smaller images, which reach that size before the last pools.
    """
    if layer.pool is None or x.shape[-1] == 1:
        return x
    if layer.pool == "average":
        return nn.functional.avg_pool2d(x, 2)
    return nn.functional.max_pool2d(x, 2)


def _initialise(weight: Tensor, init: str, conv: bool) -> None:
    """He fan_in (He et al. 2015) everywhere, or the original's: He fan_out, and normal(0, 0.01) for linear layers."""
    if weight.is_meta:  # no values: they come from a file. (torch would load its compiler, seconds, to draw none.)
        return
    if init in ("fan_in", "unit_variance"):
        nn.init.kaiming_normal_(weight, mode="fan_in", nonlinearity="relu")
    elif conv:
        nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu")
    else:
        nn.init.normal_(weight, 0.0, 0.01)


@torch.no_grad()
def scale_to_unit_variance_(module: VGG, images: Tensor) -> None:
    """Scale each layer, in place, so that its outputs have unit variance on some images.

    After Mishkin & Matas 2016 (LSUV), from He's start instead of an orthonormal one. Average pools shrink the signal
    35-fold over VGG-15, which a network without batch norm takes hundreds of steps to undo. ReLU and pools are
    positively homogeneous, so that one forward pass gives the factors of all layers: a Gaussian of unit variance has
    mean square 1/2 after the ReLU.

    Args:
        module: network, as initialised.
        images: normalised, [N, channels, height, width]; 64 or more.

    Raises:
        BsnnError: a layer gives nothing but zeros for these images.
    """
    squares: dict[str, float] = {}
    training = module.training
    logits = module.eval()(images, lambda name, x: squares.setdefault(name, 2 * float(x.double().square().mean())))
    module.train(training)
    squares[module.plan[-1].name] = float(logits.double().square().mean())
    before = 1.0
    for layer in module.plan:
        square = squares[layer.name]
        if not square > 0:
            raise BsnnError(f"{layer.name} gives nothing but zeros at the start: set network.init to fan_in")
        # All squares were measured before any weight was scaled: a layer's input is smaller by the root of `before` by
        # now, and its output is to be smaller by the root of `square`.
        module.get_parameter(f"{layer.name}.weight").mul_((before / square) ** 0.5)
        before = square


@dataclass(frozen=True)
class Trained:
    """A trained network for evaluation and conversion: a module in eval mode, and the binary layers' exact parts.

    The module of a binary network holds plain weights alpha * sign; `signs` and `alphas` hold the parts as stored,
    never recomputed.
    """

    module: VGG
    classes: tuple[str, ...]
    mean: tuple[float, ...]  # normalisation that the network was trained with, of pixels in 0..1
    std: tuple[float, ...]
    signs: Mapping[str, Tensor]  # int8 of +-1, by layer name; empty for a full-precision network
    alphas: Mapping[str, Tensor]  # float32 [outputs], by layer name

    @property
    def plan(self) -> tuple[LayerPlan, ...]:
        """Layers from input to read-out."""
        return self.module.plan

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return self.module.input_shape

    def weight(self, name: str) -> tuple[Tensor, Tensor | None]:
        """Sign (int8) and alpha of a binary layer, or weight (float32) and None of a full one."""
        if name in self.signs:
            return self.signs[name], self.alphas[name]
        weight = self.module.get_submodule(name).get_parameter("weight")
        return weight.detach().float(), None

    @property
    def device(self) -> torch.device:
        """Where the module computes."""
        return next(self.module.parameters()).device

    @property
    def graph(self) -> Graph:
        """Its description: a chain of layers of one path each; weights and scales as stored, where they lie."""
        layers: list[Layer] = []
        source = IMAGE
        for plan in self.plan:
            kind: Literal["relu", "logits"] = "logits" if plan == self.plan[-1] else "relu"
            divisor = 4 if plan.pool == "average" else 1
            pool = Pool(plan.pool, (2, 2), (2, 2), divisor=divisor) if plan.pool else None
            before = pool if plan.place == "before" else None
            weight, alpha = self.weight(plan.name)
            scale = None if alpha is None else alpha.double()
            padding = (1, 1) if plan.op == "conv" else (0, 0)
            path = Path(source, plan.op, plan.name, weight, scale, padding=padding, pool=before)
            layers.append(Layer(plan.name, kind, (path,), None, plan.unpooled if before is None else plan.shape))
            source = plan.name
            if pool is not None and before is None:
                source = f"{plan.name}.pool"
                after = Path(plan.name, "identity", source, pool=pool)
                layers.append(Layer(source, pool.kind, (after,), None, plan.shape))
        return Graph(tuple(layers), self.input_shape, folds=False)


def described(network: Trained | Graph) -> Graph:
    """The description of a network of either kind, on the network's device: names, shapes, weights."""
    return network if isinstance(network, Graph) else network.graph.to(network.device)
