"""Whether a captured graph answers as its model does: what a trace can get wrong without an error shows here."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from graphgrow.ir.doubles import parts

_REMEDY = (
    "An operator in place on a tensor that has another name (`y = x; y += 1`), an argument `out=`, or a forward that "
    "is random or keeps state can be the cause; write it without, or mark the submodule as a leaf"
)


def disagreement(model: nn.Module, found: Any, wanted: Any) -> str:
    """In what the answers of the graph and of the model to the same inputs differ; empty where they agree.

    The same operators on the same numbers give the same bits; layers that are written out as their parts round
    otherwise, so that floats may differ by sqrt(eps) of the largest one, and by 1000 eps. Whole numbers are left out:
    an argmax may turn on one bit.

    Args:
        model: for its name.
        found: the graph's answer.
        wanted: the model's.
    """
    name = type(model).__name__
    mine, theirs = pytree.tree_leaves(found), pytree.tree_leaves(wanted)
    if len(mine) != len(theirs):
        return f"the graph of {name} returns {len(mine)} values, the model {len(theirs)}"
    if type(found) is not type(wanted):
        return f"the graph of {name} returns a {type(found).__name__}, the model a {type(wanted).__name__}"
    for a, b in zip(mine, theirs, strict=True):
        if not isinstance(a, torch.Tensor) or not isinstance(b, torch.Tensor):
            if type(a) is type(b) and isinstance(b, (bool, int, float, str)) and a != b:
                return f"the graph of {name} returns {a!r}, the model {b!r}"
            continue
        if (a.shape, a.dtype) != (b.shape, b.dtype):
            return (
                f"the graph of {name} returns {a.dtype} of shape {tuple(a.shape)}, the model {b.dtype} "
                f"of shape {tuple(b.shape)}. {_REMEDY}"
            )
        if parts(b).is_floating_point() and b.numel():
            problem = _other_numbers(name, parts(a), parts(b))
            if problem:
                return problem
    return ""


def _other_numbers(name: str, found: torch.Tensor, wanted: torch.Tensor) -> str:
    eps = torch.finfo(wanted.dtype).eps
    found, wanted = found.double(), wanted.double()
    same = (found == wanted) | (found.isnan() & wanted.isnan())
    largest = float(torch.where(wanted.isfinite(), wanted.abs(), 0.0).max())
    error = torch.where(same, 0.0, (found - wanted).abs())
    if bool((error <= math.sqrt(eps) * largest + 1000 * eps).all()):
        return ""
    return (
        f"the graph of {name} computes something else than the model: it is off by "
        f"{float(error.nan_to_num(nan=math.inf).max()):.2g} on the example inputs, where the model reaches "
        f"{largest:.2g}. {_REMEDY}"
    )
