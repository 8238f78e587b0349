"""Tables of a model that are looked up, or cut, by position."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import fx, nn
from torch.nn import functional as F

from graphgrow.errors import Declined
from graphgrow.ir.called import called_module
from graphgrow.ir.editor import Editor
from graphgrow.ir.terms import Space, leaves
from graphgrow.ir.value import Fresh
from graphgrow.network.network import Network, Step
from graphgrow.ops.analysis import Opening
from graphgrow.planning.growth import Kind
from graphgrow.planning.plan import plan_growth
from graphgrow.rewrite.contract import TensorChange
from graphgrow.rewrite.interface import append_to_interface, appended, opened


@dataclass(frozen=True)
class Table:
    """A parameter whose rows are looked up, or whose first rows are read.

    Attributes:
        site: the module that holds it, or the parameter's own name.
        parameter: its qualified name.
        by_tokens: whether the rows are chosen by whole numbers that the caller gives, and not by counting.
    """

    site: str
    parameter: str
    by_tokens: bool


def tables(network: Network) -> Iterator[Table]:
    """Every table, once."""
    seen: set[str] = set()
    for node in network.module.graph.nodes:
        found = _table(network, node)
        if found is not None and found.parameter not in seen:
            seen.add(found.parameter)
            yield found


def _table(network: Network, node: fx.Node) -> Table | None:
    module = called_module(network.module, node)
    if isinstance(module, nn.Embedding):
        return Table(str(node.target), f"{node.target}.weight", _chosen_by_the_caller(network, node.args[0]))
    if node.target is F.embedding and isinstance(node.args[1], fx.Node) and node.args[1].op == "get_attr":
        name = str(node.args[1].target)
        return Table(name, name, _chosen_by_the_caller(network, node.args[0]))
    if node.op == "get_attr" and node.users and all(map(_cuts_the_front, node.users)):
        value = network.analysis.facts[node].output
        if getattr(value, "parameter", False) and not getattr(value, "buffer", True):
            return Table(str(node.target), str(node.target), False)
    return None


def _chosen_by_the_caller(network: Network, indices: object) -> bool:
    """Whether whole numbers of an input choose the rows; what is counted depends on sizes and on padding alone."""
    seen: set[fx.Node] = set()
    pending = [indices] if isinstance(indices, fx.Node) else []
    while pending:
        node = pending.pop()
        if node.op == "placeholder":
            return True
        if node not in seen and not _counts(node):
            seen.add(node)
            pending.extend(node.all_input_nodes)
    return False


def _counts(node: fx.Node) -> bool:
    """Whether a node passes on how many there are, and not which."""
    name = str(node.target) if node.op == "call_method" else getattr(node.target, "__name__", "")
    return name in ("size", "getattr", "arange", "ones_like", "zeros_like", "cumsum", "ne", "dim")


def _cuts_the_front(node: fx.Node) -> bool:
    """Whether a node reads the first rows of a table: `table[:n]`."""
    if not _is_item(node):
        return False
    index = node.args[1]
    first = index[0] if isinstance(index, tuple) and index else index
    if not isinstance(first, slice) or first.start not in (None, 0) or first.step not in (None, 1):
        return False
    stop = first.stop.meta.get("value") if isinstance(first.stop, fx.Node) else first.stop
    return isinstance(stop, int) and stop >= 0


def _is_item(node: fx.Node) -> bool:
    return getattr(node.target, "__name__", "") == "getitem"


def append_rows(
    network: Network, editor: Editor, table: Table, extra: int, generator: torch.Generator
) -> tuple[Step, list[TensorChange]]:
    """Append fresh rows to a table; where it is a head's weight too, the head puts out as many more.

    Raises:
        Declined: if rows are used by more than looking them up.
    """
    free, space = _freed(network, table)
    step, changes = append_to_interface(free, editor, space, extra, generator)
    return replace(step, dormant=frozenset(free.analysis.parameters[table.parameter].aliases)), changes


def refuse_fixed_rows(network: Network, table: Table) -> None:
    """Decline where rows cannot be appended to a table.

    Raises:
        Declined: with the reason.
    """
    free, space = _freed(network, table)
    plan_growth(free.analysis, appended(space, 1), Kind.APPEND)


def _freed(network: Network, table: Table) -> tuple[Network, Space]:
    free = opened(network, Opening(outputs=True, tables=frozenset({table.parameter})))
    value = free.analysis.parameters.get(table.parameter)
    if value is None:
        raise Declined(f"nothing reads `{table.parameter}`")
    spaces = list(leaves(value.axes[0]))
    if len(spaces) != 1:
        raise Declined(f"the rows of `{table.parameter}` are cut into parts")
    (space,) = spaces
    for node in network.module.graph.nodes:
        if node.op == "get_attr" and str(node.target) in value.aliases:
            cut = next((user for user in node.users if _is_item(user) and not _cuts_the_front(user)), None)
            if cut is not None:
                raise Declined(f"`{cut.name}` reads rows of `{table.parameter}` by other positions than the first")
    value.fresh, value.fan = Fresh.LIKE, ()  # a head of the same weight would have it start otherwise
    if space.frozen is not None:
        raise Declined(f"the rows are frozen: {space.frozen}")
    return free, space
