"""What a spiking network cannot be made of: reasons, remedies, and the place in the user's code."""

from __future__ import annotations

import re

from torch import fx

_ACTIVATIONS = (
    "gelu|silu|elu|selu|celu|leaky_relu|prelu|rrelu|hardtanh|hardswish|hardsigmoid|sigmoid|log_sigmoid|tanh|softplus|"
    "softsign|mish|softshrink|hardshrink|tanhshrink|threshold|glu|clamp|clamp_min|clamp_max|abs|exp|sin|cos"
)
_RECURRENT = "lstm|gru|rnn_tanh|rnn_relu|lstm_cell|gru_cell|rnn_tanh_cell|rnn_relu_cell"
_NORMS = (
    "layer_norm|group_norm|instance_norm|rms_norm|local_response_norm|native_.*norm|cosine_similarity|linalg_.*norm"
)
_MOVES = (
    "cat|concat|stack|chunk|split.*|slice|select|narrow|transpose|permute|movedim|roll|flip|unbind|index.*|gather|"
    "expand.*|repeat|tile|unflatten|unsqueeze|pixel_.*shuffle|channel_shuffle|unfold|t"
)
REASONS: tuple[tuple[str, str, str], ...] = (
    (_ACTIVATIONS, "an activation other than ReLU", "a neuron's rate is max(0, x): put nn.ReLU there and train again"),
    (
        "softmax|log_softmax",
        "a softmax",
        "at the end leave it out: it keeps the order of the logits; elsewhere it has no spikes",
    ),
    (_NORMS, "a norm over statistics of the image itself", "use batch norm, whose statistics are fixed after training"),
    (_RECURRENT, "a recurrent layer", "only feed-forward networks have a spiking form here"),
    (
        "scaled_dot_product_attention|matmul|bmm|mm|baddbmm|einsum",
        "a product of two values of the network (attention)",
        "spikes can be weighted by constants alone: use convolutions and linear layers",
    ),
    (
        "mul|div|pow|square|sqrt|rsqrt|reciprocal",
        "a product or power of values of the network",
        "spikes can be weighted by constants alone: leave out gates such as squeeze-and-excitation",
    ),
    (_MOVES, "a rearranged or joined value", "use sums of branches, and flatten just before the linear layers"),
    ("upsample.*|grid_sampler.*|affine_grid.*", "interpolation", "resize images before the network"),
    (
        "pad|constant_pad_nd|reflection_pad.*|replication_pad.*",
        "padding apart from a convolution's own zeros",
        "use padding=... of the convolution, with padding_mode='zeros'",
    ),
    ("conv1d|conv3d|conv_transpose.*|convolution|conv_tbc", "a convolution other than Conv2d", "use nn.Conv2d"),
    (".*pool.*", "a pool other than 2-D average or maximum pools", "use nn.AvgPool2d or nn.MaxPool2d"),
    ("embedding.*", "an embedding", "the input is an image, float32"),
    (
        "sum|mean|amax|max|min|var.*|std.*|norm|argmax|topk|sort|cumsum",
        "a reduction other than the mean over height and width",
        "use nn.AdaptiveAvgPool2d(1) or x.mean((2, 3))",
    ),
    (".*dropout.*", "dropout that is active in evaluation", "call it with training=self.training, or use nn.Dropout"),
    ("to|_to_copy|type_as", "a change of type", "keep float32 throughout"),
    ("rand.*|normal.*|bernoulli.*", "random numbers in evaluation", "leave them out where self.training is False"),
)


class UnsupportedError(Exception):
    """One operation cannot be part of a spiking network: what it is, and what to do."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what)
        self.what, self.remedy = what, remedy


def reason(target: object) -> UnsupportedError:
    """Why an operation without a handler is unsupported."""
    name = operation(target)
    for pattern, what, remedy in REASONS:
        if re.fullmatch(pattern, name):
            return UnsupportedError(f"{what} ({name})", remedy)
    return UnsupportedError(
        f"the operation {name}",
        "a network is made of Conv2d, Linear, BatchNorm, ReLU, average and maximum pools, flatten, dropout and sums",
    )


def operation(target: object) -> str:
    """Name of an operation without its overload and the mark of working in place."""
    name = str(target).removeprefix("aten.").split(".")[0]
    return name.rstrip("_") or name


def modules_of(node: fx.Node) -> list[tuple[str, str]]:
    """Path and class of each module that an operation belongs to, the network itself first."""
    stack = (node.meta.get("nn_module_stack") or {}).values()
    named = [(path, kind if isinstance(kind, str) else kind.__qualname__) for path, kind in stack]
    return [(re.sub(r"@\d+$", "", path), label.rsplit(".", 1)[-1]) for path, label in named]


def module_of(node: fx.Node) -> tuple[str, str]:
    """Path and class of the innermost module that an operation belongs to; ("", "") if it is the network itself."""
    found = modules_of(node)
    return found[-1] if len(found) > 1 else ("", "")


def place(node: fx.Node) -> str:
    """Where an operation stands: its module, and the line of the user's code."""
    path, kind = module_of(node)
    module = f"{path} ({kind})" if path else ""
    frames = re.findall(r'File "([^"]+)", line (\d+), in [^\n]*\n\s*([^\n]*)', node.meta.get("stack_trace") or "")
    own = [frame for frame in frames if "/torch/" not in frame[0]]
    if not own:
        return module or f"operation {node.name}"
    file, line, code = own[-1]
    where = f"{file.rsplit('/', 1)[-1]} line {line}: {code.strip()}"
    return f"{module}, {where}" if module else where
