"""Taking nodes out of a graph: readers go on with another value, and what nothing reads any more is erased."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import fx, nn

from graphgrow.errors import Declined
from graphgrow.ir.editor import Editor
from graphgrow.layers import CHECKS, require_dtypes
from graphgrow.network.memory import memory_roots, overwritten, written
from graphgrow.network.network import Network, Step
from graphgrow.rewrite.shapes import check_shapes


def bypass(network: Network, editor: Editor, node: fx.Node, kept: fx.Node) -> Step:
    """Let every reader of a node read a value in front of it that is the same, and erase what is left without readers.

    Args:
        network: the parent.
        editor: over a copy of the parent's module.
        node: of the parent.
        kept: of the parent, of the node's shape and dtype.

    Raises:
        Declined: if an operator behind writes into the node's memory, or an erased one into that of others.
        StructureError: if a shape changes.
    """
    refuse_shared_memory(network, node, kept)
    mine, stays = editor.node(node.name), editor.node(kept.name)
    mine.replace_all_uses_with(stays)
    erase(editor, [mine])
    check_shapes(network, editor)
    return Step(moved={node.name: kept.name})


def refuse_shared_memory(network: Network, node: fx.Node, kept: fx.Node) -> None:
    """Decline where a value of its own is overwritten behind a node, and another would be in its place.

    Raises:
        Declined: if so, and something else reads what would be overwritten.
    """
    before, now = node.meta["value"], kept.meta["value"]
    if not isinstance(now, torch.Tensor) or (before.shape, before.dtype) != (now.shape, now.dtype):
        raise Declined(f"`{kept.name}` is of another shape or dtype than `{node.name}`")
    others = [user for user in kept.users if user is not node]
    if (others or not kept.op.startswith("call")) and overwritten(node, network.module):
        raise Declined(f"an operator behind `{node.name}` writes into its memory, and `{kept.name}` has other readers")


def erase(editor: Editor, nodes: Iterable[fx.Node]) -> None:
    """Erase nodes of the copy that nothing reads, and all in front of them that nothing else reads.

    What the nodes themselves write in place is what was there before: they are identities.

    Raises:
        Declined: if an erased node writes into memory, or updates statistics, that others go on with.
    """
    module = editor.module
    identities = set(nodes)
    dead = _dead(identities)
    order = list(module.graph.nodes)
    roots = memory_roots(order, module)
    for node in dead - identities:
        for target in written(node, module):
            if _outlives(roots.get(target, frozenset({target})) - dead, order[order.index(node) + 1 :], dead, roots):
                raise Declined(f"`{node.name}` would go, and it writes into a value that others read")
    living = {str(node.target) for node in module.graph.nodes if node.op == "call_module" and node not in dead}
    for node in dead:
        if node.op == "call_module" and str(node.target) in living:
            part = module.get_submodule(str(node.target))
            if any(isinstance(inner, nn.modules.batchnorm._NormBase) for inner in part.modules()):
                raise Declined(f"`{node.target}` is called elsewhere too, and would gather other statistics")
    fetched = {str(node.target) for node in dead if node.op == "get_attr"}
    for node in [node for node in reversed(module.graph.nodes) if node in dead]:
        module.graph.erase_node(node)
    for name in fetched - {str(node.target) for node in module.graph.nodes if node.op == "get_attr"}:
        owner, _, field = name.rpartition(".")
        if owner not in living:
            delattr(module.get_submodule(owner), field)
    module.delete_all_unused_submodules()


def _outlives(
    memory: frozenset[fx.Node],
    behind: Sequence[fx.Node],
    dead: set[fx.Node],
    roots: Mapping[fx.Node, frozenset[fx.Node]],
) -> bool:
    """Whether somebody goes on with memory that was written: a node behind that stays, or who owns the graph's tensors.

    Those in front of the writing node saw what was there before, and see it still.
    """
    if any(root.op in ("placeholder", "get_attr") for root in memory):
        return True
    readers = (node for node in behind if node not in dead)
    return any(memory & roots[read] for reader in readers for read in reader.all_input_nodes)


def erase_dtype_checks(graph: fx.Graph) -> None:
    """Erase the checks of what was decided by dtypes, in place: a copy in another dtype goes its original's way."""
    for node in [node for node in graph.nodes if node.target is require_dtypes]:
        graph.erase_node(node)


def _dead(nodes: Iterable[fx.Node]) -> set[fx.Node]:
    """The nodes, and those in front of them whose every reader is among these; checks go with what they read."""
    dead: set[fx.Node] = set()
    asked = list(nodes)
    pending = list(asked)
    checks = _of_checks(pending[0].graph) if pending else {}
    while pending:
        node = pending.pop()
        if node not in dead and node.op not in ("placeholder", "output"):
            dead.add(node)
            pending.extend(node.all_input_nodes)
            pending.extend(user for user in node.users if user in checks)
    living = [node for node in dead if _is_needed(node, dead)]
    while living:  # each edge once: as many rounds as a net is deep would make it slow
        node = living.pop()
        if node in dead:
            dead.remove(node)
            living += [read for read in node.all_input_nodes if read in dead]
            living += [check for check in node.users if check in dead and check.target in CHECKS]
    kept = [node for node in checks if node in dead and node not in asked]
    for node in kept:  # what checks the sizes of something that stays stays, sizes and all
        if dead.isdisjoint(node.all_input_nodes):
            dead.remove(node)
    for node in reversed(kept):
        if node.target not in CHECKS and dead.issuperset(node.users):
            dead.add(node)
    return dead


def _is_needed(node: fx.Node, dead: set[fx.Node]) -> bool:
    """Whether something that stays reads a node, or the node checks something that stays."""
    stays = [*node.users, *(node.all_input_nodes if node.target in CHECKS else ())]
    return not dead.issuperset(stays)


def _of_checks(graph: fx.Graph) -> dict[fx.Node, None]:
    """The nodes of which nothing but checks comes, in their order."""
    found: dict[fx.Node, None] = {}
    for node in reversed(graph.nodes):
        if node.target in CHECKS or (node.users and found.keys() >= node.users.keys()):
            found[node] = None
    return dict.fromkeys(reversed(found))
