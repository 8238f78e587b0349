"""A network as text: node by node with its axes, and in words."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from torch import fx

from graphgrow.ir.terms import Concat, Product, Space, Term, normal
from graphgrow.ir.value import Value
from graphgrow.network.network import Network


def graph_text(network: Network) -> str:
    """One line a node: its operator, its arguments, and the axes of its output; spaces by their group's name.

    Spaces that belong to no group are numbered in order of appearance (`s0`), frozen ones carry an exclamation mark.
    """
    names = _Names({group.space: group.name for group in network.groups})
    lines = []
    for node, facts in network.analysis.facts.items():
        arguments = ", ".join([*map(_argument, node.args), *(f"{k}={_argument(v)}" for k, v in node.kwargs.items())])
        operator = node.op if node.op in ("placeholder", "output") else _operator(node)
        lines.append(f"{node.name} = {operator}({arguments}){_shape(facts.output, names)}")
    return "\n".join(lines)


class _Names(dict[Space, str]):
    """Names of spaces; those without one are numbered as they are asked for."""

    def __init__(self, known: Mapping[Space, str]) -> None:
        super().__init__(known)
        taken = set(known.values())
        self._free = (name for name in map("s{}".format, itertools.count()) if name not in taken)

    def __missing__(self, space: Space) -> str:
        """The next name that no group has."""
        return self.setdefault(space, next(self._free))


def _operator(node: fx.Node) -> str:
    if node.op == "call_function":
        return str(getattr(node.target, "__name__", node.target))
    return f".{node.target}" if node.op == "call_method" else str(node.target)


def _argument(argument: Any) -> str:
    if isinstance(argument, (tuple, list)):
        return f"[{', '.join(map(_argument, argument))}]"
    return str(argument)


def _shape(output: Any, names: _Names) -> str:
    if isinstance(output, Value):
        return f": [{', '.join(_term(term, names) for term in output.axes)}]"
    if isinstance(output, tuple) and any(isinstance(item, Value) for item in output):
        return ": (" + ", ".join(_shape(item, names).removeprefix(": ") or "_" for item in output) + ")"
    return ""


def _term(term: Term, names: _Names) -> str:
    term = normal(term)
    if isinstance(term, Product):
        return " x ".join(f"({_term(f, names)})" if isinstance(f, Concat) else _term(f, names) for f in term.factors)
    if isinstance(term, Concat):
        return " ++ ".join(_term(part, names) for part in term.parts)
    return f"{names[term]}={term.size}{'!' if term.frozen else ''}"


def explanation(network: Network) -> str:
    """How the model was captured, what can grow, what cannot and why, and which operators have no rule."""
    growing = [group for group in network.groups if group.frozen is None]
    fixed = [group for group in network.groups if group.frozen is not None]
    modes = " and ".join(sorted(network.modes))
    width = max((len(group.name) for group in network.groups), default=0)
    lines = [
        f"Captured with {network.way}: {len(network.module.graph.nodes)} nodes, valid in {modes} mode.",
        f"{'What did not grow' if len(network.ledger) else 'The graph'} shares its parameters with the captured model.",
        *(f"Note: {note}." for note in network.notes),
        "",
        f"{counted(len(growing), 'channel group')} can grow{':' if growing else '.'}",
        *(f"  {g.name:<{width}} {g.size:>6} units  written by {some(g.members)}" for g in growing),
    ]
    if fixed:
        lines += ["", f"{len(fixed)} cannot:", *(f"  {g.name:<{width}} {g.size:>6} units  {g.frozen}" for g in fixed)]
    unknown = network.analysis.unknown
    if unknown:
        lines += ["", "Operators that froze what they touch:", *_unknown(unknown)]
    if len(network.ledger):
        lines += [
            "",
            f"{counted(len(network.ledger), 'mutation')} applied:",
            *(f"  {entry}" for entry in network.ledger),
        ]
    return "\n".join(lines)


def counted(count: int, what: str) -> str:
    """A number of things in words: `1 mutation`, `2 mutations`."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def some(paths: Sequence[str], most: int = 3) -> str:
    """The first of some paths, and how many more there are."""
    shown = ", ".join(paths[:most])
    return shown if len(paths) <= most else f"{shown} and {len(paths) - most} more"


def _unknown(unknown: Mapping[fx.Node, str]) -> list[str]:
    by_text: dict[str, list[str]] = {}
    for node, text in unknown.items():
        by_text.setdefault(text, []).append(node.name)
    return [f"  {text}: {some(tuple(nodes))}" for text, nodes in by_text.items()]
