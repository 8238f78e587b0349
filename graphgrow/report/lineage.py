"""The family tree of an evolution, as a graph and as a figure."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphgrow.records import CandidateRecord
from graphgrow.report.figure import BLUE, ORANGE, below, drawing, name_points, whole_numbers
from graphgrow.report.front import PALE, Scale

if TYPE_CHECKING:
    import networkx as nx


def lineage(records: Sequence[CandidateRecord]) -> nx.DiGraph:
    """The candidates as a networkx.DiGraph, edges from parent to child.

    Nodes are numbers with `generation`, `origin`, `objectives`, `parameters` and `flops`; edges have `mutations`, and
    `inherited`, which is true where the child started from the parent's weights.
    """
    import networkx as nx

    graph = nx.DiGraph()
    for record in records:
        graph.add_node(
            record.number,
            generation=record.generation,
            origin=record.origin,
            objectives=dict(record.objectives),
            parameters=record.parameters,
            flops=record.flops,
        )
        for place, parent in enumerate(record.parents):
            graph.add_edge(parent, record.number, mutations=record.mutations, inherited=place == 0)
    return graph


def lineage_figure(graph: nx.DiGraph, front: Collection[int], scale: Scale, path: str | os.PathLike[str]) -> Path:
    """Draw a family tree: generations to the right, the objective upwards; who leads to the front is in colour.

    Args:
        graph: as `lineage` makes it.
        front: numbers of the candidates of the front.
        scale: of the objective.
        path: of the file; its suffix chooses the format.

    Raises:
        GraphGrowError: as `figure` does.
    """
    import networkx as nx

    kept = set(front).union(*(nx.ancestors(graph, number) for number in front)) if front else set()
    with drawing(path, bool(graph), columns=1, size=(9.6, 5.0)) as (panel,):
        places = {
            number: (facts["generation"], scale.factor * facts["objectives"].get(scale.name, float("nan")))
            for number, facts in graph.nodes(data=True)
        }
        for parent, child, facts in graph.edges(data=True):
            leads = parent in kept and child in kept
            style: dict[str, Any] = {"color": BLUE, "linewidth": 1.2, "zorder": 2} if leads else {"color": PALE}
            if not leads:
                style |= {"linewidth": 0.6, "zorder": 1}
            (x, y), (u, v) = places[parent], places[child]
            panel.plot([x, u], [y, v], linestyle="-" if facts["inherited"] else ":", **style)
        groups = (
            ("did not last", [n for n in graph if n not in kept], {"color": PALE, "markersize": 4}),
            ("ancestor", [n for n in graph if n in kept and n not in front], {"color": BLUE, "mfc": "white"}),
            ("front", list(front), {"color": BLUE}),
            ("base", [n for n in graph if graph.in_degree(n) == 0], {"color": ORANGE, "marker": "D", "markersize": 6}),
        )
        for label, numbers, style in groups:
            points = [places[number] for number in numbers]
            options: dict[str, Any] = {"marker": "o", "linestyle": "", "zorder": 3, **style}
            panel.plot([x for x, _ in points], [y for _, y in points], label=label, **options)
        panel.plot([], [], ":", color=BLUE, label="second parent")
        panel.set_title("Lineage: who inherited whose weights")
        panel.set_xlabel("generation")
        panel.set_ylabel(f"{scale.label} ({scale.better})")
        whole_numbers(panel)
        below(panel)
        name_points(panel, {str(number): places[number] for number in front})
    return Path(path)
