"""Sizes that a graph computes from others, in another proportion: of an input that may come with another size."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import fx

from graphgrow.errors import Declined
from graphgrow.ir.facts import Derived, Extent, NodeFacts, SizeSlot
from graphgrow.ir.meta import stand_beside, values_of
from graphgrow.ir.terms import Product, Term, leaves, normal

_Step = tuple[Callable[[Any, Any], Any], int]


def in_proportion(
    node: fx.Node, size: SizeSlot, present: fx.Node, wanted: int, facts: Mapping[str, NodeFacts]
) -> fx.Node:
    """A node that computes `wanted` where the present one computes what it does now, and in proportion elsewhere.

    What was divided off a size that has grown (`x.shape[0] // heads`) is divided off it anew: the old quotient has a
    remainder now, and would be rounded. Of a product with a number (`b * heads`) it is the number that changes, where
    a whole one does.

    Args:
        node: the operator that takes the size.
        size: which of its sizes, and its axis.
        present: what computes it.
        wanted: what it has to be on the example.
        facts: of the parent's nodes, by name.

    Raises:
        Declined: if the present one computes 0, as half of a single channel is, or rounds what has grown.
    """
    value = present.meta["value"]
    if not value:
        raise Declined(f"the sizes of `{node.name}` are computed from an input's, and give no proportion to follow by")
    whole = _divided(present, size, facts)
    if whole is not None:
        up, down = _reduced(wanted, whole.meta["value"])
        steps: tuple[_Step, ...] = ((operator.floordiv, down),) if up == 1 else _steps(up, down)
        as_it_is = len(steps) == 1 and present.target is operator.floordiv and present.args == (whole, down)
        return present if as_it_is else _written(node, whole, steps)
    up, down = _reduced(wanted, value)
    if present.target is operator.mul:
        factors = [factor for factor in present.args if isinstance(factor, fx.Node)]
        numbers = [factor for factor in present.args if isinstance(factor, int)]
        if len(factors) == len(numbers) == 1 and numbers[0] * up % down == 0:
            return _written(node, factors[0], ((operator.mul, numbers[0] * up // down),))
    if any(up > 1 or dividend % divisor for dividend, divisor in _divisions(present, facts)):
        raise Declined(f"a size of `{node.name}` is divided off one that grows, and would be rounded for other inputs")
    return present if value == wanted else _written(node, present, _steps(up, down))


def _steps(up: int, down: int) -> tuple[_Step, ...]:
    return (operator.mul, up), (operator.floordiv, down)


def _reduced(wanted: int, value: int) -> tuple[int, int]:
    common = math.gcd(value, wanted)
    return wanted // common, value // common


def _written(node: fx.Node, result: fx.Node, steps: tuple[_Step, ...]) -> fx.Node:
    for function, number in steps:
        value = function(result.meta["value"], number)
        with node.graph.inserting_before(node):
            result = node.graph.call_function(function, (result, number))
        stand_beside(result, node)
        result.meta["value"] = value
    return result


def _divided(present: fx.Node, size: SizeSlot, facts: Mapping[str, NodeFacts]) -> fx.Node | None:
    """The size of an axis that the present one is divided off, by numbers, where it is a whole part at every input."""
    place, rounded = present, False
    while place.target in (operator.mul, operator.floordiv):
        others = [arg for arg in place.args if isinstance(arg, fx.Node)]
        if len(others) != 1 or (place.target is operator.floordiv and others[0] is not place.args[0]):
            return None
        rounded = rounded or place.target is operator.floordiv
        place = others[0]
    known = facts[place.name].output if place.name in facts else None
    if not rounded or not isinstance(known, Extent) or len(known.terms) != 1 or known.law is None:
        return None
    if known.law.slope != 1 or any(known.law.offsets):
        return None
    rest = _factors(known.terms[0])
    for factor in (factor for term in size.terms for factor in _factors(term)):
        if factor in rest:
            rest.remove(factor)
        elif _may_differ(factor):
            return None
    return None if any(map(_may_differ, rest)) else place


def _factors(term: Term) -> list[Term]:
    found = normal(term)
    return list(found.factors) if isinstance(found, Product) else [found]


def _may_differ(factor: Term) -> bool:
    """Whether an axis may have another size for other inputs: one that is frozen, and no single position."""
    return any(leaf.frozen and leaf.of is None for leaf in leaves(factor))


def divides_anew(present: fx.Node, facts: Mapping[str, NodeFacts]) -> bool:
    """Whether a size that growth has changed is divided on the way to the present one.

    What the present one is on the example may then be what is wanted by chance.
    """
    return any(True for _ in _divisions(present, facts))


def _divisions(present: fx.Node, facts: Mapping[str, NodeFacts]) -> Iterator[tuple[int, int]]:
    """Which numbers are divided, and by which, on the way to the present one; of dividends that have changed."""
    pending, seen = [present], {present}
    while pending:
        place = pending.pop()
        if place.target is operator.floordiv and isinstance(place.args[0], fx.Node):
            known = facts[place.args[0].name].output if place.args[0].name in facts else None
            dividend, divisor = values_of(place.args)
            if (known.value if isinstance(known, Derived) else known) != dividend and divisor:
                yield dividend, divisor
        for used in place.all_input_nodes:
            if isinstance(used.meta.get("value"), int) and used not in seen:
                seen.add(used)
                pending.append(used)
