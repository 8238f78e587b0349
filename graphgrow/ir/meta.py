"""Example values without data: running nodes on the meta device."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from graphgrow.ir.answers import Answers
from graphgrow.ir.apart_from_dynamo import apart_from_dynamo

# Key of node.meta under which fx keeps the modules around a node: path -> (path, class), outermost first.
STACK = "nn_module_stack"

# Key of node.meta for leaves that cannot run on the meta device: what they returned on the example inputs. Nothing
# that touches such a leaf can grow, so that its shapes stay.
FIXED = "fixed_value"

# Attribute of a module that runs in one mode alone: whether that is train mode.
HOLDS_IN_TRAIN = "holds_in_train"

# Key of node.meta for fetched parameters and buffers that the forward overwrites.
OVERWRITTEN = "overwritten"

# Layers that, in eval mode, answer a tensor of floating point with a new one of its shape. On the meta device one takes
# dozens of operators that are written in Python.
_ELEMENTWISE: frozenset[Any] = frozenset(
    (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish, nn.Sigmoid, nn.Tanh, nn.Softplus)
)
_BATCH_NORMS: dict[Any, tuple[int, ...]] = {
    nn.BatchNorm1d: (2, 3),
    nn.BatchNorm2d: (4,),
    nn.BatchNorm3d: (5,),
}  # with the axes that they admit
_ON_ONE_DEVICE = {
    "masked_fill",
    "masked_fill_",
    torch.masked_fill,
}  # whose value may be a number of the CPU but on meta
# How they compute, so that a class that somebody patched is run.
_FORWARDS: dict[Any, Any] = {kind: kind.forward for kind in (*_ELEMENTWISE, *_BATCH_NORMS, nn.Linear, nn.LayerNorm)}


def stand_beside(new: fx.Node, node: fx.Node) -> None:
    """Let a new node stand in the modules around another, whose copies will need it too."""
    if STACK in node.meta:
        new.meta[STACK] = dict(node.meta[STACK])


def is_number(value: Any) -> bool:
    """Whether an example value is a tensor of one number that is known, as `torch.tensor(x.shape[1])` is."""
    return isinstance(value, torch.Tensor) and value.dim() == 0 and value.device.type == "cpu"


def _staying(args: Any, kwargs: Any) -> tuple[Any, Any]:
    """Arguments of `to` with the meta device for each that they name: where a tensor is moved, its example stays."""

    def stay(leaf: Any) -> Any:
        return torch.device("meta") if isinstance(leaf, (str, torch.device)) else leaf

    return tuple(map(stay, args)), {name: stay(value) for name, value in kwargs.items()}


def to_meta(value: Any) -> Any:
    """Every tensor within a nested value, on the meta device; all else as it is."""

    def convert(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor) or leaf.is_meta:
            return leaf
        return leaf.detach().to("meta")

    return pytree.tree_map(convert, value, is_leaf=lambda item: isinstance(item, torch.Size))  # a Size, not its numbers


def meta_twin(module: nn.Module) -> nn.Module:
    """A leaf module with its tensors on the meta device, without hooks, and in eval mode where it runs in that."""
    twin = copy.copy(module)
    twin.__dict__ = dict(module.__dict__)
    for name, value in twin.__dict__.items():
        if name.endswith("_hooks"):
            twin.__dict__[name] = type(value)()
    twin.__dict__["_parameters"] = {
        name: None if p is None else nn.Parameter(p.detach().to("meta"), requires_grad=False)
        for name, p in module._parameters.items()
    }
    twin.__dict__["_buffers"] = {name: None if b is None else b.to("meta") for name, b in module._buffers.items()}
    twin.__dict__["_modules"] = {
        name: None if child is None else meta_twin(child) for name, child in module._modules.items()
    }
    if type(module) in (nn.LSTM, nn.GRU, nn.RNN):  # what they compute with is in a list beside the parameters
        names, weights = vars(module)["_flat_weights_names"], vars(module)["_flat_weights"]
        pairs = zip(names, weights, strict=True)
        twin.__dict__["_flat_weights"] = [twin._parameters.get(name, weight) for name, weight in pairs]
    twin.training = bool(getattr(module, HOLDS_IN_TRAIN, False))
    return twin


def _known_answer(twin: nn.Module, args: Any, kwargs: Any) -> torch.Tensor | None:
    """What a layer answers, where that is known to be a new tensor of some shape; None where it has to be run."""
    if kwargs or len(args) != 1 or not isinstance(args[0], torch.Tensor) or not args[0].is_floating_point():
        return None
    if "forward" in vars(twin) or type(twin).forward is not _FORWARDS.get(type(twin)):
        return None
    x, held = args[0], [t for t in (*twin._parameters.values(), *twin._buffers.values()) if t is not None]
    if isinstance(twin, nn.Linear):
        fits = x.dim() > 0 and x.is_contiguous() and x.shape[-1] == twin.weight.shape[1]
        if not fits or any(t.dtype != x.dtype or len(t) != len(twin.weight) for t in held):
            return None
        return x.new_empty((*x.shape[:-1], len(twin.weight)))
    if isinstance(twin, nn.LayerNorm):
        axes = twin.normalized_shape
        alike = x.is_contiguous() and x.shape[-len(axes) :] == axes
        alike = alike and all(t.dtype == x.dtype and t.shape == axes for t in held)
    elif isinstance(twin, nn.modules.batchnorm._BatchNorm):
        alike = twin.running_mean is not None and x.dim() in _BATCH_NORMS[type(twin)]
        alike = alike and all(t.dim() == 0 or (t.dtype == x.dtype and len(t) == x.shape[1]) for t in held)
    else:
        alike = not getattr(twin, "inplace", False)
    return torch.empty_like(x) if alike else None


class MetaRunner:
    """Runs single nodes of a graph on the meta device, remembering the twins of leaf modules.

    Args:
        root: whose nodes they are.
        answers: what operators have answered so far; none where it is left out.
        remember: whether what operators answered is looked up and remembered; not where somebody watches them run, as a
            counter of FLOPs does.
    """

    def __init__(self, root: nn.Module, answers: Answers | None = None, remember: bool = True) -> None:
        self._root = root
        self._twins: dict[str, nn.Module] = {}
        self._answers = (Answers() if answers is None else answers) if remember else None

    def replace(self, path: str, module: nn.Module) -> None:
        """Run another module in the place of the one at a path."""
        self._twins[path] = meta_twin(module)

    def run_node(self, node: fx.Node) -> Any:
        """The example value of a node whose inputs have theirs."""
        if FIXED in node.meta:
            return node.meta[FIXED]
        return self.run(node.op, node.target, *values_of((node.args, node.kwargs)))

    def run(self, kind: str, target: Any, args: Any, kwargs: Any) -> Any:
        """The example value of one operator call, given example values of its arguments."""
        with torch.no_grad():
            if kind == "call_module":
                if target not in self._twins:
                    self._twins[target] = meta_twin(self._root.get_submodule(target))
                twin = self._twins[target]
                watched = self._answers is None and isinstance(twin, nn.Linear)  # a counter has to see its product
                known = None if watched else _known_answer(twin, args, kwargs)
                if known is not None:
                    return known
                return self._answer(twin, args, kwargs, lambda: twin(*args, **kwargs))
            if kind == "get_attr":
                value: Any = self._root
                for part in str(target).split("."):
                    value = getattr(value, part)
                return to_meta(value)
            return self._answer(target, args, kwargs, lambda: _called(kind, target, args, kwargs))

    def _answer(self, called: Any, args: Any, kwargs: Any, run: Callable[[], Any]) -> Any:
        def ran() -> Any:
            with apart_from_dynamo():
                return run()

        return ran() if self._answers is None else self._answers.of(called, args, kwargs, ran)


def _called(kind: str, target: Any, args: Any, kwargs: Any) -> Any:
    """What a function or a method returns for example values."""
    held = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    known = all(map(is_number, held)) and (bool(held) or target is torch.tensor)
    if target in _ON_ONE_DEVICE and not known:
        args, kwargs = to_meta((args, kwargs))
    if kind == "call_method":
        if target in ("to", "cpu") and not known:
            target, args, kwargs = "to", *_staying(args if target == "to" else (args[0], "cpu"), kwargs)
        result = getattr(args[0], target)(*args[1:], **kwargs)
    else:
        result = target(*args, **kwargs)
    if known and is_number(result):
        return result  # worked out from sizes alone: a number that later operators may need
    return to_meta(result)  # a new tensor may stand on the default device


def propagate(module: fx.GraphModule, inputs: dict[str, Any], answers: Answers | None = None) -> None:
    """Give every node its example value, as `node.meta["value"]`.

    Args:
        module: the graph.
        inputs: by name of the placeholder its value; tensors are taken to the meta device.
        answers: what operators have answered so far; none where it is left out.
    """
    runner = MetaRunner(module, answers)
    for node in module.graph.nodes:
        if node.op == "placeholder":
            node.meta["value"] = to_meta(inputs[node.name])
        elif node.op == "output":
            node.meta["value"] = values_of(node.args[0])
        else:
            node.meta["value"] = runner.run_node(node)


def values_of(arguments: Any) -> Any:
    """Arguments of a node with nodes replaced by their example values."""
    return fx.node.map_arg(arguments, lambda node: node.meta["value"])
