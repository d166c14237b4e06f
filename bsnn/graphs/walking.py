"""One pass over an exported program: every operation becomes a value, a layer, or a problem."""

from __future__ import annotations

import operator
import re
from typing import Any

from torch import Tensor, fx

from bsnn.errors import ConversionError
from bsnn.graphs import operations, pools
from bsnn.graphs.building import Builder
from bsnn.graphs.description import Graph
from bsnn.graphs.operations import Handler
from bsnn.graphs.problems import UnsupportedError, module_of, modules_of, operation, place, reason
from bsnn.graphs.sums import Unknown, Value

HANDLERS: dict[str, Handler] = {
    "conv2d": operations.convolution,
    "linear": operations.linear,
    "matmul": operations.product,
    "mm": operations.product,
    "batch_norm": operations.batch_norm,
    "instance_norm": operations.batch_norm,
    "relu": operations.relu,
    "clamp": operations.clamped,
    "clamp_min": operations.clamped,
    "add": operations.add,
    "sub": operations.subtract,
    "mul": operations.multiply,
    "div": operations.divide,
    "dropout": operations.dropout,
    "feature_dropout": operations.dropout,
    "alpha_dropout": operations.dropout,
    "feature_alpha_dropout": operations.dropout,
    "to": operations.converted,
    "detach": operations.same,
    "clone": operations.same,
    "contiguous": operations.same,
    "alias": operations.same,
    "flatten": operations.reshaped,
    "view": operations.reshaped,
    "reshape": operations.reshaped,
    "squeeze": operations.reshaped,
    "max_pool2d": pools.maximum,
    "avg_pool2d": pools.average,
    "adaptive_avg_pool2d": pools.adaptive_average,
    "adaptive_max_pool2d": pools.adaptive_maximum,
    "mean": pools.mean,
}
COMPOSITE = (  # modules of torch that are reported as one, whatever they consist of
    "MultiheadAttention",
    "TransformerEncoderLayer",
    "TransformerDecoderLayer",
    "Transformer",
    "LSTM",
    "GRU",
    "RNN",
)


class Walk:
    """Reads an exported program.

    Args:
        exported: of torch.export, of a batch of images alone.
        images: that it was exported with; two or more.
    """

    def __init__(self, exported: Any, images: Tensor) -> None:
        self.nodes = exported.graph.nodes
        self.builder = Builder(tuple(images.shape[1:]))
        self.values: dict[fx.Node, Any] = {}
        self.problems: dict[str, None] = {}  # in the order of the code, each once
        signature = exported.graph_signature
        # Buffers that are not persistent are not in the state: torch.export keeps them among the constants.
        held = {**exported.state_dict, **exported.constants}
        targets = {
            **signature.inputs_to_parameters,
            **signature.inputs_to_buffers,
            **signature.inputs_to_lifted_tensor_constants,
        }
        self.constants = {name: held[target] for name, target in targets.items()}

    def graph(self) -> Graph:
        """The description.

        Raises:
            ConversionError: with all problems.
        """
        # A problem stops nothing: what it concerns becomes Unknown, and reading goes on, so that all are told at once.
        for node in self.nodes:
            if node.op == "placeholder":
                # What is no constant is the batch of images.
                self.values[node] = self.constants.get(node.name, self.builder.image)
            elif node.op == "call_function":
                self._call(node)
            elif node.op == "output":
                graph = self._finished(node.args[0])
        if self.problems or graph is None:
            listed = "".join(f"\n  {number}. {problem}" for number, problem in enumerate(self.problems, 1))
            many = "reason" if len(self.problems) == 1 else "reasons"
            raise ConversionError(
                f"the module cannot become a spiking network, for {len(self.problems)} {many}:{listed}"
            )
        return graph

    def _finished(self, results: Any) -> Graph | None:
        flat = list(results) if isinstance(results, tuple | list) else [results]
        if len(flat) != 1 or not isinstance(flat[0], fx.Node):
            several = UnsupportedError(f"{len(flat)} results", "let forward return one tensor of logits")
            self._report("the result", several)
            return None
        logits = self.values.get(flat[0])
        if isinstance(logits, Unknown):
            return None
        try:
            if not isinstance(logits, Value):
                raise UnsupportedError("a result that does not depend on the images", "return logits")
            return self.builder.finished(logits)
        except UnsupportedError as problem:
            self._report(f"the result ({place(flat[0])})", problem)
            return None

    def _report(self, where: str, problem: UnsupportedError) -> None:
        self.problems[f"{where}: {problem.what}. {problem.remedy[0].upper()}{problem.remedy[1:]}"] = None

    def _call(self, node: fx.Node) -> None:
        arguments = self._arguments(node)
        if operation(node.target).startswith(("_assert", "sym_constrain")):  # checks, which give nothing to read
            return
        # Unknown is a Value, too: what is computed from it is never executed as a constant.
        read = any(isinstance(some, Value) for argument in arguments.values() for some in _each(argument))
        if not read:
            self._constant(node)
            return
        value = self._value(node, arguments)
        self.values[node] = value
        if re.search(r"_\.", str(node.target)):  # in place: later readers of the operand see the result
            self.values[node.all_input_nodes[0]] = value

    def _value(self, node: fx.Node, arguments: dict[str, Any]) -> Value:
        """The result of an operation on values of the network."""
        shape = _shape(node)
        # Before any handler: each operation within such a module would be a problem of its own. Told by the module's
        # place, they are one, since equal problems are kept once.
        composite = next((module for module in modules_of(node) if module[1] in COMPOSITE), None)
        if composite is not None:
            path, kind = composite
            problem = UnsupportedError(f"a {kind}", "use convolutions, linear layers, ReLU and sums")
            self._report(f"{path} ({kind})" if path else kind, problem)
            return Unknown(shape)
        if node.target is operator.getitem:  # one of several results, all of them unknown
            return Unknown(shape)
        self.builder.label = module_of(node)[0] or node.name
        handler = HANDLERS.get(operation(node.target))
        try:
            if handler is None:
                raise reason(node.target)
            return handler(self.builder, arguments, shape)
        except UnsupportedError as problem:
            self._report(place(node), problem)
            return Unknown(shape)

    def _constant(self, node: fx.Node) -> None:
        """An operation on parameters and numbers alone: its result is a constant."""
        # A draw would be executed once, and stay in the weights.
        if re.fullmatch("(rand|normal|bernoulli|multinomial).*", operation(node.target)):
            self._report(place(node), reason(node.target))
            self.values[node] = Unknown(_shape(node))
            return
        # Executed on the real tensors: weights may be computed from parameters, as weight norm does.
        arguments = fx.node.map_arg((node.args, node.kwargs), self.values.__getitem__)
        positional, named = arguments
        self.values[node] = node.target(*positional, **named)  # type: ignore[operator]

    def _arguments(self, node: fx.Node) -> dict[str, Any]:
        """Arguments by name, defaults included."""
        schema = getattr(node.target, "_schema", None)
        names = [argument.name for argument in schema.arguments] if schema else []
        names += [f"argument {index}" for index in range(len(names), len(node.args))]
        given = {argument.name: argument.default_value for argument in schema.arguments} if schema else {}
        given |= dict(zip(names, node.args, strict=False)) | dict(node.kwargs)
        return {name: fx.node.map_arg(value, lambda n: self.values.get(n)) for name, value in given.items()}


def _each(argument: Any) -> list[Any]:
    return list(argument) if isinstance(argument, tuple | list) else [argument]


def _shape(node: fx.Node) -> tuple[int, ...]:
    """Shape of an operation's (first) result for one image."""
    found = node.meta.get("val")
    while isinstance(found, tuple | list) and found:
        found = found[0]
    return tuple(int(size) for size in found.shape[1:]) if isinstance(found, Tensor) else ()
