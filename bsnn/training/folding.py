"""A form of the network that trains nearly as fast as batch norm does, and folds into plain weights at its end.

While training, for each layer with neurons and each of its output channels o,

    x_o = gain_o * c_o / rms_o,    c = (W - mean(W)) * input,    rms_o^2 = mean over batch and places of c_o^2

where the mean of W is over the filter of a channel: weights are centred as in weight standardisation (Qiao et al.
2019), and outputs are divided by their root mean square over the batch, as batch norm does (Ioffe & Szegedy 2015) but
without subtracting a mean. Standardisation's division is left out, since the division by rms undoes any factor of W.
In evaluation a running mean of rms^2 takes the batch's place. Both are a shift and a factor of the weights,

    W'_o = |gain_o| / running_rms_o * (W_o - mean(W_o)),

so that the trained network is a member of the plain family, with neither bias nor batch norm. In a binary layer, whose
weights are alpha_o * sign(W_o), the factor folds into alpha_o. Gains count by their magnitude: a channel of negative
gain is one of turned signs, and alpha and thresholds stay positive.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from bsnn import config
from bsnn.networks import binary
from bsnn.networks.columns import convolution
from bsnn.networks.vgg import VGG, LayerPlan, Trained, pooled

MOMENTUM = 0.02  # share of a batch in the running mean of squares
EPS = 1e-5  # beside mean squares, as in batch norm
CHUNK = 512  # rows that are added up in their own type
READ_OUT = 0.1  # of He's start: first gradients come from near-uniform outputs

Parts = tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]  # full weights, signs, alphas, by layer name


class _DividedByRMS(torch.autograd.Function):
    """Rows of [M, C] divided by the root mean square of their column, times a gain.

    Written out, since autograd's own graph of the same formula keeps and passes over the rows twice as often, and
    memory is what such an operation costs. With f = gain / rms and y = f x:

        dx = f * (dy - x * mean(dy * x) / rms^2),    dgain = sum(dy * x) / rms
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
        square = _summed(rows.square(), gain.dtype).div_(len(rows))  # rows may be bfloat16
        inverse = (square + EPS).rsqrt()
        ctx.save_for_backward(rows, gain, inverse)
        ctx.mark_non_differentiable(square)
        return rows * (gain * inverse).to(rows.dtype), square

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        rows, gain, inverse = ctx.saved_tensors
        given = gradients[0]
        products = _summed(given * rows, gain.dtype)
        factor = gain * inverse
        # The rms depends on every row of its column: this part of the gradient comes back through it.
        along = factor * inverse.square() * products / len(rows)
        return torch.addcmul(given * factor.to(rows.dtype), rows, -along.to(rows.dtype)), products * inverse


def _summed(rows: Tensor, dtype: torch.dtype) -> Tensor:
    """Sum of the rows of [M, C].

    On a CPU many rows are added up in chunks: where the sum's type is another than theirs, PyTorch converts all of them
    first there, which takes four times as long as adding them up does.
    """
    whole = len(rows) - len(rows) % CHUNK
    if rows.dtype == dtype or rows.device.type != "cpu" or not whole:
        return rows.sum(0, dtype=dtype)
    chunks = rows[:whole].unflatten(0, (-1, CHUNK)).sum(1)  # in float32, each rounded at its end
    total: Tensor = chunks.sum(0, dtype=dtype) + rows[whole:].sum(0, dtype=dtype)
    return total


class _Centred(torch.autograd.Function):
    """Weights less the mean of their filter; half as many passes over the gradient as autograd's own graph takes."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor) -> Tensor:
        return centred(weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return centred(gradients[0])


class FoldableVGG(VGG):
    """A member of the family in the form above; its children and their weights are named as in the plain one.

    With several processes each takes the root mean square of its own part of a batch, and the first one's running
    means count.
    """

    def __init__(self, network: config.Network, input_shape: tuple[int, int, int], classes: int) -> None:
        super().__init__(network, input_shape, classes)
        self.gains = nn.ParameterDict({layer.name: torch.ones(layer.outputs) for layer in self.plan[:-1]})
        for layer in self.plan[:-1]:
            self.register_buffer(f"{layer.name}_square", torch.ones(layer.outputs))
        with torch.no_grad():
            self.get_parameter(f"{self.plan[-1].name}.weight").mul_(READ_OUT)

    def current(self, layer: LayerPlan, x: Tensor) -> Tensor:
        """What the ReLU gets: weighted sum, average pool, division by the root mean square, maximum pool.

        The division commutes with average pools, and after them there is less to divide; its statistics are then
        those of what neurons see.
        """
        x = self.weighted(layer, x)
        if _divided_after_pool(layer):
            return self._divided(layer, pooled(x, layer))
        x = self._divided(layer, x)
        return pooled(x, layer) if layer.place == "before" else x

    def factors(self) -> dict[str, Tensor]:
        """Factor of each output channel that the form comes to, by layer name: float32 [outputs]."""
        squares = {layer.name: self.get_buffer(f"{layer.name}_square") for layer in self.plan[:-1]}
        return {name: self.gains[name].abs() * (square + EPS).rsqrt() for name, square in squares.items()}

    def weighted(self, layer: LayerPlan, x: Tensor) -> Tensor:
        """Weighted sum of a layer's input, by centred weights; by those of a binary layer as they are."""
        module = self.get_submodule(layer.name)
        weight = cast(Tensor, module.weight)
        if not parametrize.is_parametrized(module, "weight"):  # latents are centred in place
            weight = cast(Tensor, _Centred.apply(weight))
        return convolution(x, weight) if layer.op == "conv" else nn.functional.linear(x.flatten(1), weight)

    def _divided(self, layer: LayerPlan, x: Tensor) -> Tensor:
        if not self.training:
            return x * self.factors()[layer.name].reshape(1, -1, *[1] * (x.dim() - 2)).to(x.dtype)
        # Channels last, so that the batch and all places are the rows of one matrix.
        rows = x.movedim(1, -1)
        divided, square = _DividedByRMS.apply(rows.reshape(-1, rows.shape[-1]), self.gains[layer.name].abs())
        with torch.no_grad():
            self.get_buffer(f"{layer.name}_square").lerp_(square, MOMENTUM)
        result: Tensor = divided.reshape(rows.shape).movedim(-1, 1)
        return result


def _divided_after_pool(layer: LayerPlan) -> bool:
    return layer.pool == "average" and layer.place == "before"


def centred(weight: Tensor) -> Tensor:
    """Weights [outputs, ...] less the mean over each output channel's filter."""
    return weight - weight.mean(dim=tuple(range(1, weight.dim())), keepdim=True)


@torch.no_grad()
def parts(module: VGG) -> Parts:
    """What a network in training amounts to: full weights, and signs and alphas of binary layers; on the CPU."""
    signs, alphas = binary.parts(module)
    names = [layer.name for layer in module.plan if layer.name not in signs]
    full = {name: module.get_parameter(f"{name}.weight").detach() for name in names}
    if isinstance(module, FoldableVGG):
        for name, factor in module.factors().items():
            if name in signs:
                alphas[name] = alphas[name] * factor.cpu()
            else:
                weight = centred(full[name])
                full[name] = weight * factor.reshape(-1, *[1] * (weight.dim() - 1))
    return {name: weight.cpu() for name, weight in full.items()}, signs, alphas


@torch.no_grad()
def share_of_means(start: Trained) -> float:
    """Largest share of a filter's norm that centring takes away, of all filters that this form centres."""
    shares = []
    for layer in start.plan[:-1]:
        weight = start.module.get_parameter(f"{layer.name}.weight").flatten(1)
        shares.append((weight.mean(1).abs() * weight.shape[1] ** 0.5 / weight.norm(dim=1).clamp_min(EPS)).max())
    return float(torch.stack(shares).max())


@torch.no_grad()
def begin_from_(module: FoldableVGG, start: Trained, images: Tensor) -> None:
    """Take a trained network's weights, in place, and gains that keep the scale of its currents.

    The module then computes what the network does if that was trained in this form; otherwise filters lose their means.
    In evaluation, too: its running means begin at the squares of these images. (Of a network that is then made binary
    they are soon those of its own.)

    Each filter is scaled to He's standard deviation, which changes nothing that the form computes: learning rates and
    the clipping of latents then mean what they mean for a fresh network.

    Args:
        module: network, before it is made binary.
        start: trained network of the same settings.
        images: normalised, [N, channels, height, width], on the CPU; 64 or more.
    """
    x = images
    for layer in start.plan[:-1]:
        weighted = start.module.weighted(layer, x)
        divided = pooled(weighted, layer) if _divided_after_pool(layer) else weighted
        places = [dim for dim in range(divided.dim()) if dim != 1]
        # The form divides by this rms and multiplies by the gain: equal, they leave the currents of the start.
        module.gains[layer.name].copy_(divided.square().mean(dim=places).sqrt())
        x = start.module.activate(layer, pooled(weighted, layer) if layer.place == "before" else weighted)
    for layer in module.plan:
        weight = start.module.get_parameter(f"{layer.name}.weight").detach()
        if layer is not module.plan[-1]:
            weight = centred(weight)
            dims = tuple(range(1, weight.dim()))
            size = weight.square().mean(dim=dims, keepdim=True).sqrt().clamp_min(EPS)
            # He's deviation for layers that a ReLU follows: the root of 2 / fan-in.
            scale = (2 / weight[0].numel()) ** 0.5 / size
            weight = weight * scale
            module.get_buffer(f"{layer.name}_square").copy_((module.gains[layer.name] * scale.flatten()).square())
        module.get_parameter(f"{layer.name}.weight").copy_(weight)
