"""Sources of noise: switched off, or made to say that they are there without being random."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import fx, nn
from torch.nn import functional as F

from graphgrow.layers import ByMode, Choice, OneMode

_FUNCTIONS = (F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout, torch.dropout)
_CLASSES = ("Dropout", "AlphaDropout", "StochasticDepth", "DropPath")
_BATCH_NORMS = (nn.modules.batchnorm._NormBase,)
M = TypeVar("M", bound=nn.Module)


class Steady(nn.Module):
    """Stands for a source of noise of probability p: in train mode it multiplies by 1 + p, in eval mode by 1.

    Like the noise, it acts on each element alone, so that networks with the same noise at the same places still
    agree; one with other noise does not.
    """

    def __init__(self, probability: float, training: bool, inner: nn.Module | None = None) -> None:
        super().__init__()
        self.probability, self.inner, self.training = probability, inner, training

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What `inner` computes, or the input, times the factor."""
        result = args[0] if self.inner is None else self.inner(*args, **kwargs)
        return result * (1 + self.probability) if self.training and self.probability else result


def steadied(module: nn.Module) -> nn.Module:
    """A module whose noise is steady; it and its parts are changed in place where they are not noise themselves."""
    for part in list(module.modules()):
        for name, child in part._modules.items():
            if child is not None:
                part._modules[name] = _steady(child)
        _silence(part)
    return _steady(module)


def _steady(module: nn.Module) -> nn.Module:
    probability = _probability(module)
    if probability is not None:
        return Steady(probability, module.training)
    inside: Any = getattr(module, "dropout_p", None)
    if isinstance(inside, float) and inside:  # attention drops weights inside of itself
        setattr(module, "dropout_p", 0.0)  # noqa: B010  # a plain assignment is typed as a tensor's
        return Steady(inside, module.training, module)
    return module


def _probability(module: nn.Module) -> float | None:
    """Of a module that is nothing but noise; None of any other."""
    if not any(name in type(module).__name__ for name in _CLASSES):
        return None
    found = getattr(module, "p", getattr(module, "drop_prob", None))
    return float(found) if isinstance(found, (int, float)) else None


def _silence(part: nn.Module) -> None:
    """Switch off the noise inside of modules that do more; a choice then has the gradient of its function.

    The check of a graph of one mode is lifted: some comparisons run its operators in the other.
    """
    if isinstance(part, Choice):
        part.gumbel, part.straight = 0.0, False
    if isinstance(part, (nn.MultiheadAttention, nn.RNNBase)):
        part.dropout = 0.0
    if isinstance(part, OneMode):
        part.lifted = True


def is_noise(node: fx.Node) -> bool:
    """Whether a node calls a function that drops elements."""
    return node.op == "call_function" and node.target in _FUNCTIONS


def steady_function(input: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> torch.Tensor:
    """What stands for such a function, with its arguments."""
    return input * (1 + p) if training else input


def quiet(module: M) -> M:
    """Switch off dropout and stochastic depth, in place: their probabilities become 0."""
    for part in module.modules():
        if _probability(part) is not None and hasattr(part, "p"):
            setattr(part, "p", 0.0)  # noqa: B010  # a plain assignment is typed as a tensor's
        for name in ("dropout_p", "drop_prob"):
            if isinstance(getattr(part, name, None), float):
                setattr(part, name, 0.0)
        _silence(part)
    if isinstance(module, fx.GraphModule):
        for node in module.graph.nodes:
            if is_noise(node):
                node.args, node.kwargs = node.args[:1], {"p": 0.0, "training": False}
            elif node.op == "call_function" and node.target is F.scaled_dot_product_attention:
                node.args = node.args[:4] + (0.0,) * (len(node.args) > 4) + node.args[5:]
                node.kwargs = {**node.kwargs, **({"dropout_p": 0.0} if "dropout_p" in node.kwargs else {})}
        module.recompile()
    return module


def depends_on_mode(module: fx.GraphModule) -> bool:
    """Whether a graph with steady noise may compute something else in train than in eval mode.

    Modules of torch.nn without buffers do not, noise and batch and instance norm aside; of any other it is not known.
    """
    for node in module.graph.nodes:
        if node.op == "call_function" and node.target in (F.batch_norm, F.instance_norm):
            return True
        if node.op != "call_module":
            continue
        for part in module.get_submodule(str(node.target)).modules():
            noise = _probability(part)
            if noise is not None and not noise:
                continue
            inside: Any = getattr(part, "dropout_p", None)
            plain = type(part).__module__.startswith(("torch.nn.", "graphgrow.layers")) and not noise and not inside
            if not plain or part._buffers or isinstance(part, (*_BATCH_NORMS, nn.RReLU, nn.RNNBase, ByMode)):
                return True
    return False
