"""Writes that autograd does not see: under `torch.no_grad()`, or through `x.detach()` or `x.data`.

In the model a gradient passes them by, as if nothing had been written. In a graph of values it would end there.
"""

from __future__ import annotations

from torch import fx, nn

from graphgrow.capture.graphs.writes import storages_of

DATA = "data"
"""In the metadata of a `detach` that stands for `x.data`."""


def detached(node: fx.Node) -> bool:
    """Whether a node is a name without gradient for the memory that it shows."""
    return _cut(node) is not None


def unseen(node: fx.Node) -> bool:
    """Whether a node is a name that `x.data` gave: autograd does not count what is written there."""
    cut = _cut(node)
    return cut is not None and DATA in cut.meta


def severed(target: fx.Node, root: nn.Module) -> bool:
    """Whether what a write goes into has no gradient, while the memory has one under its other names.

    Args:
        target: the name that is written.
        root: the model, whose parameters learn.
    """
    cut = _cut(target)
    pending, seen = [] if cut is None else [*cut.all_input_nodes], set[fx.Node]()
    while pending:
        node = pending.pop()
        if node in seen or _is_detach(node) or _is_new(node):
            continue
        seen.add(node)
        if node.op == "get_attr" and _is_parameter(str(node.target), root):
            return True
        pending += [used for used in node.all_input_nodes if _is_floating(used)]
        if node.op == "call_module" and any(True for _ in root.get_submodule(str(node.target)).parameters()):
            return True
    return False


def _cut(node: fx.Node) -> fx.Node | None:
    """The detaching that a node comes from, by names of one memory alone."""
    storages = storages_of(node.meta.get("value"))
    while not _is_detach(node):
        source = node.args[0] if node.args else None
        if not isinstance(source, fx.Node) or not storages_of(source.meta.get("value")) & storages:
            return None
        node = source
    return node


def _is_detach(node: fx.Node) -> bool:
    return node.op == "call_method" and node.target == "detach"


def _is_new(node: fx.Node) -> bool:
    """Whether a node makes a tensor that takes nothing of another but its sizes and dtype."""
    name = str(node.target if node.op == "call_method" else getattr(node.target, "__name__", ""))
    return name.endswith("_like") or name.startswith("new_")


def _is_floating(node: fx.Node) -> bool:
    value = node.meta.get("value")
    dtype = getattr(value, "dtype", None)
    return dtype is None or dtype.is_floating_point or dtype.is_complex


def _is_parameter(path: str, root: nn.Module) -> bool:
    owner, _, name = path.rpartition(".")
    return name in root.get_submodule(owner)._parameters
