"""Modules with hooks stay as they are: a hook was written for that module and the shapes that it sees."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx, nn

from graphgrow.errors import Declined
from graphgrow.ir.hooks import hook_of


def refuse_changed_hooks(before: fx.GraphModule, after: fx.GraphModule) -> None:
    """See that every module with hooks is still there, is called, and holds what it held.

    Args:
        before: the parent.
        after: the child, whose modules share all parameters that were not replaced.

    Raises:
        Declined: names the module that would change, and its hook.
    """
    hooked = [(path, hook_of(module)) for path, module in before.named_modules() if path and hook_of(module)]
    if not hooked:
        return
    called = {str(node.target) for node in after.graph.nodes if node.op == "call_module"}
    present = dict(after.named_modules())
    for path, kind in hooked:
        around = [target for target in called if f"{path}.".startswith(f"{target}.")]
        if not around or path not in present or not _same(before.get_submodule(path), present[path]):
            raise Declined(f"`{path}` has a {kind} and would be changed or replaced; remove the hook first")


def _same(old: nn.Module, new: nn.Module) -> bool:
    """Whether a module holds the same parameters, buffers of the same shapes, and the same attributes."""
    if type(old) is not type(new) or [*old._parameters] != [*new._parameters]:
        return False
    pairs = zip(old._parameters.values(), new._parameters.values(), strict=True)
    return all(_same_tensor(p, q) for p, q in pairs) and _attributes(old) == _attributes(new)


def _same_tensor(old: torch.Tensor | None, new: torch.Tensor | None) -> bool:
    """Whether they are one, or one is the other's copy (a child that shares nothing)."""
    if old is new or old is None or new is None:
        return old is new
    return old.shape == new.shape and (old.is_meta or torch.equal(old, new))


def _attributes(module: nn.Module) -> dict[str, Any]:
    plain = {
        name: value
        for name, value in vars(module).items()
        if name != "training" and isinstance(value, (bool, int, float, str, tuple, type(None)))
    }
    shapes = {name: value.shape for name, value in module._buffers.items() if isinstance(value, torch.Tensor)}
    return {**plain, **shapes}
