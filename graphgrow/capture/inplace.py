"""In-place operators: later readers of an overwritten tensor are made to read what was written.

A graph whose edges are values cannot show that `x.add_(1)` changes what a later reader of `x` sees. The graph still
computes the same, since the written value is the same tensor; but now the edges tell the truth.
"""

from __future__ import annotations

import operator

from torch import fx, nn

from graphgrow.errors import CaptureError

_OPERATORS = {
    operator.iadd,
    operator.isub,
    operator.imul,
    operator.itruediv,
    operator.ipow,
    operator.iand,
    operator.ior,
}
_VIEWS = {
    "view", "reshape", "flatten", "unflatten", "permute", "transpose", "squeeze", "unsqueeze", "expand", "chunk",
    "split", "unbind", "select", "narrow", "t", "contiguous", "detach",
}  # fmt: skip


def thread_inplace(graph: fx.Graph, root: nn.Module) -> None:
    """Redirect the readers of overwritten tensors.

    Raises:
        CaptureError: if a tensor is overwritten while another view of it is read afterwards.
    """
    order = {node: number for number, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        if not is_inplace(node, root) or not isinstance(node.args[0] if node.args else None, fx.Node):
            continue
        written = node.args[0]
        for user in [u for u in written.users if order[u] > order[node]]:
            user.replace_input_with(written, node)
        _refuse_views(node, order)


def is_inplace(node: fx.Node, root: nn.Module) -> bool:
    """Whether a node overwrites its first argument."""
    if node.op == "call_module":
        return bool(getattr(root.get_submodule(str(node.target)), "inplace", False))
    if node.op == "call_method":
        name = str(node.target)
        return name.endswith("_") and not name.endswith("__") and name != "requires_grad_"
    if node.op != "call_function":
        return False
    name = getattr(node.target, "__name__", "")
    return node.target in _OPERATORS or bool(node.kwargs.get("inplace")) or (name.endswith("_") and name[:1] != "_")


def _refuse_views(node: fx.Node, order: dict[fx.Node, int]) -> None:
    """Other views of the overwritten memory that are read later would change unseen."""
    origin = _origin(node.args[0])  # type: ignore[arg-type]
    pending, seen = [origin], {node}
    while pending:
        alias = pending.pop()
        for user in alias.users:
            if user in seen:
                continue
            seen.add(user)
            if order[user] > order[node] and alias is not node.args[0]:
                raise CaptureError(
                    f"`{node.name}` overwrites a tensor in place that `{user.name}` reads afterwards through the view "
                    f"`{alias.name}`; write it without in-place operators, or mark the submodule as a leaf"
                )
            if _is_view(user):
                pending.append(user)


def _origin(node: fx.Node) -> fx.Node:
    while _is_view(node) and isinstance(node.args[0], fx.Node):
        node = node.args[0]
    return node


def _is_view(node: fx.Node) -> bool:
    name = str(node.target) if node.op == "call_method" else getattr(node.target, "__name__", "")
    return node.op in ("call_method", "call_function") and (name in _VIEWS or node.target is operator.getitem)
