"""Children of networks: mutations drawn at random, and crossover of two ledgers of one family."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Mapping, Sequence

from graphgrow.bulk.scale import scale
from graphgrow.errors import Declined, MutationError, SearchError, StructureError, Unsupported
from graphgrow.graph import Graph
from graphgrow.network.ledger import Entry, Ledger
from graphgrow.rewrite.apply import apply
from graphgrow.rewrite.contract import Mutation
from graphgrow.rewrite.registry import own_passes, pass_named, pass_names
from graphgrow.search.recipe import Evolution, Limits, Variation

CHOICE = "mix-operators"  # opening a site to a choice is for the differentiable search, which settles it again
NOT_HERE = (Declined, MutationError, Unsupported, StructureError)


def require_known_to_workers(recipe: Evolution) -> None:
    """Refuse an evolution that may draw a pass which this process alone knows.

    Workers import what the recipe names. A pass of the user's that is registered elsewhere would never be drawn there,
    and a study that goes on in another process would take another course.

    Raises:
        SearchError: with the pass, its module and what to write.
    """
    task = recipe.task
    imported = {*task.passes, *(name.partition(":")[0] for name in (task.model, task.data))}
    for name, kind in own_passes().items():
        if kind.__module__ in imported or not _rate(name, recipe.variation.rates):
            continue
        module = kind.__module__ if kind.__module__ != "__main__" else "the_module"
        move = "" if module == kind.__module__ else "move it to a module, and "
        raise SearchError(
            f"the pass `{name}` is registered in {kind.__module__}, which workers do not import; {move}write "
            f'passes = ["{module}"] under [task] in the recipe, or give it a rate of 0'
        )


def within(graph: Graph, limits: Limits) -> bool:
    """Whether a network is as small as it must be."""
    if limits.parameters is not None and graph.parameter_count > limits.parameters:
        return False
    return limits.flops is None or graph.flops <= limits.flops


def mutate(graph: Graph, draw: random.Random, variation: Variation, limits: Limits) -> Graph:
    """A child by one to `variation.most` random mutations; its tensors that did not change are the parent's.

    First a pass is drawn by the rates, then one of the sites that it offers, then its options; or, as often as
    `variation.scaling` says, every width at once by one factor between 1 and 2. What declines there, or leads beyond
    the limits, is drawn again.

    Raises:
        SearchError: if no mutation was admissible in as many tries as the recipe gives.
        MutationError: if the rates name an unknown pass.
    """
    wanted = draw.randint(1, variation.most)
    single = sum(_weights(variation.rates))
    child, made, tries = graph, 0, 0
    while made < wanted and tries < variation.tries:
        tries += 1
        whole = variation.scaling > 0 and draw.random() * (single + variation.scaling) >= single
        grown = _scaled(child, draw) if whole else _mutated(child, draw, variation.rates)
        if grown is not None and within(grown, limits):
            child, made = grown, made + 1
    if child is graph:
        raise SearchError(f"no mutation was admissible in {variation.tries} draws; raise the limits, or `tries`")
    return child


def draw_mutation(graph: Graph, draw: random.Random, rates: Mapping[str, float]) -> Mutation | None:
    """One mutation that the graph offers, with random options; None where the pass that was drawn offers none.

    Raises:
        MutationError: if the rates name an unknown pass.
        SearchError: if all rates are zero.
    """
    for name in rates:
        pass_named(name)
    weights = _weights(rates)
    if not any(weights):
        raise SearchError("all rates are zero, so that nothing can be drawn; give one pass a rate above zero")
    offered = list(graph.mutations(draw.choices(pass_names(), weights)[0]))
    return draw.choice(offered).varied(graph, draw) if offered else None


def _weights(rates: Mapping[str, float]) -> list[float]:
    """How often each pass is drawn, relative to the others."""
    return [_rate(name, rates) for name in pass_names()]


def _rate(name: str, rates: Mapping[str, float]) -> float:
    return float(rates.get(name, pass_named(name).unasked and name != CHOICE))


def _scaled(graph: Graph, draw: random.Random) -> Graph | None:
    """Every width times one factor between 1 and 2, small ones as often as large ones; None where nothing grows."""
    factor, seed = 2 ** draw.random(), draw.getrandbits(31)
    with contextlib.suppress(*NOT_HERE):
        return scale(graph, width=factor, multiple=1, seed=seed)
    return None


def _mutated(graph: Graph, draw: random.Random, rates: Mapping[str, float]) -> Graph | None:
    """The graph with one mutation; None where the pass that was drawn offers none, or it is not admissible."""
    mutation, seed = draw_mutation(graph, draw, rates), draw.getrandbits(31)
    return None if mutation is None else _applied(graph, mutation, seed)


def cross(fitter: Graph, other: Graph, draw: random.Random, limits: Limits) -> Graph:
    """A child of two networks of one family: the fitter one, with mutations of the other grafted on.

    The ledgers share a prefix (the common ancestor's). Of what the other one did since, each mutation is taken with
    probability 1/2, in order; one that the fitter parent has too, that does not apply there, or that leads beyond the
    limits is left out. So the child starts as the fitter parent's function, with its weights.

    Raises:
        SearchError: if nothing could be grafted.
    """
    mine = set(_since(fitter.ledger, other.ledger))
    theirs = [entry for entry in _since(other.ledger, fitter.ledger) if entry not in mine]
    child = fitter
    for entry in theirs:
        if draw.random() < 0.5:
            grown = _applied(child, entry.mutation, entry.seed)
            if grown is not None and within(grown, limits):
                child = grown
    if child is fitter:
        raise SearchError("the two parents have no mutations that could be recombined")
    return child


def _since(ledger: Ledger, other: Ledger) -> Sequence[Entry]:
    """The entries behind the common prefix of two ledgers."""
    shared = 0
    for mine, theirs in zip(ledger, other, strict=False):
        if mine != theirs:
            break
        shared += 1
    return ledger.entries[shared:]


def _applied(graph: Graph, mutation: Mutation | str, seed: int) -> Graph | None:
    """The graph with a mutation; None where it is not admissible."""
    with contextlib.suppress(*NOT_HERE):
        return apply(graph, mutation, seed=seed)
    return None
