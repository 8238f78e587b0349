"""Whether one module is built like another: classes, plain attributes, names and shapes of tensors; then all else."""

from __future__ import annotations

import weakref
from collections import defaultdict
from collections.abc import Iterable, Set
from typing import Any

import torch
from torch import nn

_INTERNAL = set(nn.Module().__dict__)
_HOOKS = sorted(name for name in _INTERNAL if name.endswith("_hooks"))
_REGISTRIES = ("parameters", "buffers")


def construction_difference(original: nn.Module, rebuilt: nn.Module) -> str | None:
    """The first difference between what two constructors made, in words; None where there is none.

    Compared are, for the modules and all below them: classes, plain attributes, hooks, and the names and shapes of
    parameters and buffers. What the tensors hold, their dtype and the mode flags are not.
    """
    return _modules_difference(original, rebuilt) or _tensors_difference(original, rebuilt, exact=False)


def difference(original: nn.Module, rebuilt: nn.Module, holders: Set[str]) -> str | None:
    """The first difference of any kind between two module trees, in words; None where there is none.

    Beyond `construction_difference`: dtypes, requires_grad, memory layout, the bits of every tensor, which buffers are
    persistent, mode flags, which names share one module or tensor, and the order of the parameters.

    Args:
        original: the one.
        rebuilt: the other.
        holders: names of modules that only hold others, whose classes and attributes may differ.
    """
    found = _modules_difference(original, rebuilt, holders) or _tensors_difference(original, rebuilt, exact=True)
    if found is not None:
        return found
    for name, module in original.named_modules(remove_duplicate=False):
        twin = rebuilt.get_submodule(name)
        if module.training != twin.training:
            return f"`{name}` is in {_mode(module)} mode, and in {_mode(twin)} mode when rebuilt"
        if module._non_persistent_buffers_set != twin._non_persistent_buffers_set:
            return f"`{name}` has other non-persistent buffers: {sorted(module._non_persistent_buffers_set)}"
    if _names_by_identity(original) != _names_by_identity(rebuilt):
        return "other names share a module or a tensor"
    if [name for name, _ in original.named_parameters()] != [name for name, _ in rebuilt.named_parameters()]:
        return "the parameters come in another order"
    return None


def bits(tensor: torch.Tensor) -> torch.Tensor:
    """The bytes of a tensor in the order of its elements, so that NaN equals itself and zeros have signs."""
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


def _modules_difference(original: nn.Module, rebuilt: nn.Module, holders: Set[str] = frozenset()) -> str | None:
    mine = dict(original.named_modules(remove_duplicate=False))
    theirs = dict(rebuilt.named_modules(remove_duplicate=False))
    if set(mine) != set(theirs):
        return f"other submodules: {', '.join(sorted(set(mine) ^ set(theirs))[:3])}"
    for name, module in mine.items():
        twin = theirs[name]
        where = f"`{name}`: " if name else ""
        hooked = next((hooks for hooks in _HOOKS if bool(getattr(module, hooks)) != bool(getattr(twin, hooks))), None)
        if hooked is not None:
            return f"{where}it has hooks ({hooked.strip('_')}), which code cannot show; remove them (handle.remove())"
        if name in holders:
            continue
        if not _same_class(type(module), type(twin)):
            return f"{where}class {type(module).__name__}, rebuilt as {type(twin).__name__}"
        found = _attributes_difference(module, twin)
        if found is not None:
            return where + found
    return None


def _same_class(original: type, rebuilt: type) -> bool:
    """Whether two classes are one, or one the copy of the other's source, or a subclass that adds a constructor."""
    return rebuilt is plain_class(original) or rebuilt.__qualname__ == original.__qualname__


def plain_class(kind: type) -> type:
    """The class of torch.nn that a private subclass of torch's equals in all but its constructor; else the class."""
    added = set(vars(kind)) - {"__init__", "__module__", "__doc__", "__annotations__", "__static_attributes__"}
    added -= {"__firstlineno__"}
    base = kind.__mro__[1]
    private = getattr(nn, kind.__name__, None) is None and kind.__module__.startswith("torch.nn.")
    return base if private and not added and getattr(nn, base.__name__, None) is base else kind


def _attributes_difference(module: nn.Module, twin: nn.Module) -> str | None:
    mine = {name: value for name, value in vars(module).items() if name not in _INTERNAL}
    theirs = {name: value for name, value in vars(twin).items() if name not in _INTERNAL}
    for name in sorted(set(mine) | set(theirs)):
        if name not in theirs:
            return f"the attribute {name!r} is {mine[name]!r:.60}, which its constructor does not set; delete it"
        if name not in mine:
            return f"the attribute {name!r}, which its constructor sets, is missing"
        if not _same(mine[name], theirs[name]):
            return f"the attribute {name!r} is {mine[name]!r:.60}, and {theirs[name]!r:.60} when rebuilt"
    return None


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        if not isinstance(other, torch.Tensor) or one.shape != other.shape:
            return False
        return other.is_meta or bool((bits(one) == bits(other)).all())
    if isinstance(one, (list, tuple)):
        same_kind = isinstance(other, (list, tuple)) and len(one) == len(other)
        return same_kind and all(map(_same, one, other))
    if isinstance(one, dict):
        return isinstance(other, dict) and set(one) == set(other) and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, weakref.ref):
        return isinstance(other, weakref.ref)
    return bool(one == other) or (one != one and other != other)


def _tensors_difference(original: nn.Module, rebuilt: nn.Module, exact: bool) -> str | None:
    for registry in _REGISTRIES:
        mine = dict(getattr(original, f"named_{registry}")(remove_duplicate=False))
        theirs = dict(getattr(rebuilt, f"named_{registry}")(remove_duplicate=False))
        if set(mine) != set(theirs):
            return f"other {registry}: {', '.join(sorted(set(mine) ^ set(theirs))[:3])}"
        for name, tensor in mine.items():
            if tensor.shape != theirs[name].shape:
                return f"{name} is {tuple(tensor.shape)}, and {tuple(theirs[name].shape)} when rebuilt"
            found = _tensor_difference(tensor, theirs[name]) if exact else None
            if found is not None:
                return f"{name}: {found}"
    return None


def _tensor_difference(tensor: torch.Tensor, twin: torch.Tensor) -> str | None:
    for what in ("dtype", "requires_grad"):
        if getattr(tensor, what) != getattr(twin, what):
            return f"{what} is {getattr(tensor, what)}, and {getattr(twin, what)} when rebuilt"
    if not torch.equal(bits(tensor.cpu()), bits(twin.cpu())):
        return "it holds other numbers"
    return None


def _names_by_identity(module: nn.Module) -> set[frozenset[str]]:
    """The sets of names that stand for one object, of modules and of tensors."""
    names: dict[int, set[str]] = defaultdict(set)
    everything: Iterable[tuple[str, Any]] = [
        *((f"module {name}", part) for name, part in module.named_modules(remove_duplicate=False)),
        *module.named_parameters(remove_duplicate=False),
        *module.named_buffers(remove_duplicate=False),
    ]
    for name, thing in everything:
        names[id(thing)].add(name)
    return {frozenset(one) for one in names.values() if len(one) > 1}


def _mode(module: nn.Module) -> str:
    return "train" if module.training else "eval"
