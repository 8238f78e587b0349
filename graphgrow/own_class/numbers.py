"""The numbers of a model's attributes that a graph grown from it has other values of."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import fx

from graphgrow.errors import ExportError
from graphgrow.own_class.expression import Expression, Factor, Number, Quotient
from graphgrow.own_class.marked import MarkedFloat, MarkedInt
from graphgrow.own_class.origin import Origin
from graphgrow.own_class.parting import arguments_of, called, roots_of, settings_of

_COMPARED = {operator.eq, operator.ne}


@dataclass(frozen=True)
class _Wish:
    """What one node wants: that an expression has a value."""

    expression: Expression
    value: Number
    node: str


def numbers_of(grown: fx.GraphModule, base: fx.GraphModule) -> dict[Origin, Any]:
    """By attribute of the model, the number that the grown graph has where the base's reads that attribute.

    Where the base reads a sum, a product or a quotient of several (`heads * head_dim`), the one of them that no other
    node says follows from it. A number that the model compares with a size, and finds equal, is that size.

    Args:
        grown: the grown graph.
        base: the graph that it has grown from, captured of a model whose numbers are marked.

    Raises:
        ExportError: if two operators want different numbers of one attribute, as where layers that share a
            configuration have grown unevenly.
    """
    found: dict[Factor, Any] = {}
    readers: dict[Factor, str] = {}
    wishes = list(_wishes(grown, base))
    waiting = list(wishes)
    while waiting:
        later = []
        for wish in waiting:
            _divide(wish.expression, found)
            solved = wish.expression.solved(wish.value, found)
            if not solved and not wish.expression.factors <= found.keys():
                later.append(wish)
            found.update(solved)
            readers.update(dict.fromkeys(solved, wish.node))
            for one, number in solved.items():
                if isinstance(one, Quotient) and isinstance(number, int):
                    later.append(_Wish(one.of.plus(one.by.times(number), -1), 0, wish.node))
        if later == waiting:
            break  # what is left does not say which of several numbers it is
        waiting = later
    for wish in wishes:
        if wish.expression.factors <= found.keys() and wish.expression.value(found) != wish.value:
            raise ExportError(_disagreement(wish, found, readers))
    return {origin: number for origin, number in found.items() if isinstance(origin, Origin)}


def numbers_read(base: fx.GraphModule) -> frozenset[Factor]:
    """The numbers of a model that a graph reads, by themselves or in what is worked out of them.

    Args:
        base: captured of a model whose numbers are marked.
    """
    read: set[Factor] = set()
    waiting = [number.expression for node in base.graph.nodes for number in _given(node, base) if _is_marked(number)]
    while waiting:
        for factor in waiting.pop().factors - read:
            read.add(factor)
            waiting += (factor.of, factor.by) if isinstance(factor, Quotient) else ()
    return frozenset(read)


def _is_marked(number: Any) -> bool:
    return isinstance(number, (MarkedInt, MarkedFloat))


def _divide(expression: Expression, known: dict[Factor, Any]) -> None:
    """Work out the quotients of an expression of which both sides are known by now."""
    for factor in expression.factors:
        if isinstance(factor, Quotient) and factor not in known:
            for side in (factor.of, factor.by):
                _divide(side, known)
            if factor.of.factors | factor.by.factors <= known.keys():
                whole, by = factor.of.value(known), factor.by.value(known)
                if by and not whole % by:
                    known[factor] = whole // by


def _wishes(grown: fx.GraphModule, base: fx.GraphModule) -> Iterator[_Wish]:
    now, live = {node.name: node for node in grown.graph.nodes}, _live(grown)
    for node in base.graph.nodes:
        twin = now.get(node.name)
        if twin is None or called(grown, twin) != called(base, node):
            continue
        if twin not in live:
            yield from _compared(twin, node)
            continue
        before, after = _given(node, base), _given(twin, grown)
        if len(before) != len(after):
            continue
        for number, value in zip(before, after, strict=True):
            if _is_marked(number) and isinstance(value, (int, float)):
                yield _Wish(number.expression, value, node.name)


def _live(module: fx.GraphModule) -> set[fx.Node]:
    """The nodes that what a graph puts out or does is made of; growth leaves the others as they were."""
    live, waiting = set[fx.Node](), list(roots_of(module))
    while waiting:
        node = waiting.pop()
        if node not in live:
            live.add(node)
            waiting += node.all_input_nodes
    return live


def _compared(twin: fx.Node, node: fx.Node) -> Iterator[_Wish]:
    """What a comparison by which the model decided, while it was captured, says of a number: it is that size."""
    if node.target not in _COMPARED or len(node.args) != 2:
        return
    for (size, number), grown in zip((node.args, node.args[::-1]), (twin.args, twin.args[::-1]), strict=True):
        if isinstance(size, fx.Node) and isinstance(number, MarkedInt) and size.meta["value"] == number:
            assert isinstance(grown[0], fx.Node)
            yield _Wish(number.expression, grown[0].meta["value"], node.name)


def _disagreement(wish: _Wish, found: dict[Factor, Any], readers: dict[Factor, str]) -> str:
    factors = sorted(wish.expression.factors, key=str)
    if wish.expression == Expression.of(factors[0]) and factors[0] in readers:
        found_for = f"{found[factors[0]]} for `{readers[factors[0]]}`"
        return f"`{factors[0]}` would have to be {found_for} and {wish.value} for `{wish.node}`"
    held = " and ".join(
        f"`{one}` is {found[one]}" + (f" for `{readers[one]}`" if one in readers else "") for one in factors
    )
    return f"{held}, which makes {wish.expression.value(found)}, and `{wish.node}` has {wish.value}"


def _given(node: fx.Node, module: fx.GraphModule) -> list[Any]:
    """The arguments of a node one by one, and the settings of the module that it calls."""
    given = arguments_of(node)
    if node.op == "call_module":
        fx.node.map_aggregate(list(settings_of(module.get_submodule(str(node.target))).values()), given.append)
    return given
