"""Mutations that are refused: what was seen and what to do, and nothing is changed."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import graphgrow as gg
from tests.bad_input.model import IMAGE, fingerprint, net, same

# mutations -> what the error says
MUTATIONS: dict[str, tuple[Any, type[gg.GraphGrowError], str]] = {
    "an unknown pass": ("grow(0)", gg.MutationError, r"there are .*split, .*widen"),
    "no parentheses": ("widen", gg.MutationError, "cannot read 'widen'"),
    "an unknown group": ("widen(conv9, extra=1)", gg.MutationError, "no channel group `conv9`"),
    "a near miss": ("widen(00, extra=1)", gg.MutationError, "did you mean"),
    "an unknown option": ("widen(0, more=1)", gg.MutationError, "it has group, extra"),
    "an option twice": ("widen(0, extra=1, extra=2)", gg.MutationError, "twice"),
    "a missing option": ("widen(0)", gg.MutationError, "lacks extra"),
    "extra of zero": ("widen(0, extra=0)", gg.MutationError, "at least 1"),
    "a negative extra": ("widen(0, extra=-2)", gg.MutationError, "at least 1"),
    "an extra that is no number": ("widen(0, extra=many)", gg.MutationError, "wants int"),
    "a frozen group": ("widen(4, extra=1)", gg.Declined, "a model output"),
    "a unit out of range": ("split(0, units=[4])", gg.MutationError, "units 0 to 3"),
    "a negative unit": ("split(0, units=[-1])", gg.MutationError, "units 0 to 3"),
    "a unit twice": ("split(0, units=[1, 1])", gg.MutationError, "twice"),
    "a single copy": ("split(0, copies=1)", gg.MutationError, "at least 2"),
    "units without brackets": ("split(0, units=1)", gg.MutationError, "list in brackets"),
    "an open bracket": ("split(0, units=[1)", gg.MutationError, "bracket"),
    "an unknown site": ("deepen(9)", gg.MutationError, "there is no site `9`"),
    "a site that is near": ("deepen(00)", gg.MutationError, "did you mean"),
    "an unknown kind": ("deepen(2, kind=huge)", gg.MutationError, "there are auto, conv, mlp"),
    "a kind that does not fit": ("deepen(2, kind=mlp)", gg.Declined, r"does not fit maps of shape \(2, 4, 6, 6\)"),
    "tokens are wanted": ("deepen(2, kind=attention)", gg.Declined, "does not fit maps"),
    "nothing to copy": ("deepen(2, kind=copy)", gg.Declined, "through weights of its own"),
    "a negative width": ("deepen(2, kind=conv, hidden=-1)", gg.MutationError, "hidden=-1"),
    "a cycle": ("add-skip(2, target=0)", gg.Declined, "a cycle would arise"),
    "a skip to itself": ("add-skip(2, target=2)", gg.GraphGrowError, "itself"),
    "maps to features": ("add-skip(2, target=4)", gg.Declined, "cannot be added"),
    "no target": ("add-skip(2)", gg.MutationError, "lacks target"),
    "a branch beside a norm": ("add-branch(1)", gg.Declined, "no convolution or linear map"),
    "a branch of another kind": ("add-branch(0, kind=mlp)", gg.Declined, "does not fit a Conv2d"),
    "a gate between shapes": ("add-branch(0, kind=identity)", gg.Declined, r"\(2, 3, 8, 8\) and \(2, 4, 6, 6\)"),
    "a smaller kernel": ("enlarge-kernel(0, to=1)", gg.MutationError, r"has a kernel of \(3, 3\)"),
    "another parity": ("enlarge-kernel(0, to=4)", gg.Declined, "parity"),
    "a kernel of a linear map": ("enlarge-kernel(4, to=5)", gg.Declined, "no convolution"),
    "an unknown activation": ("swap-activation(2, to=blue)", gg.MutationError, "there are relu"),
    "the same activation": ("swap-activation(2, to=relu)", gg.MutationError, "one already"),
    "no activation": ("swap-activation(0, to=gelu)", gg.Declined, "no activation"),
    "nothing to settle": ("settle-activation(2)", gg.Declined, "no blend"),
    "a blend on its way": (
        ["swap-activation(2, to=gelu)", "settle-activation(2)"],
        gg.Declined,
        "share s of the new activation is 0",
    ),
    "two swaps of one": (
        ["swap-activation(2, to=gelu)", "swap-activation(2, to=silu)"],
        gg.Declined,
        "settle-activation first",
    ),
    "the second of two": (["widen(0, extra=1)", "widen(4, extra=1)"], gg.Declined, "a model output"),
    # ways back
    "an operand that is no side": ("drop-branch(2, operand=2)", gg.MutationError, "has the operands 0 and 1"),
    "no addition": ("drop-branch(2)", gg.Declined, "`2` is no addition of two values"),
    "a layer that does something": ("drop-identity(2)", gg.Declined, "`2` is not known to pass its input on"),
    "a layer of no such name": ("drop-identity(nothing)", gg.MutationError, "no site `nothing`; see graph.mutations"),
    "nothing to merge": ("merge-units(0, units=[], into=[])", gg.MutationError, "each once, at least one"),
    "units and places of unlike number": ("merge-units(0, units=[0, 1], into=[2])", gg.MutationError, "as many units"),
    "a unit merged into itself": ("merge-units(0, units=[0], into=[0])", gg.MutationError, "cannot be one that stays"),
    "a unit merged out of range": ("merge-units(0, units=[9], into=[0])", gg.MutationError, "units 0 to 3, not 9"),
    "units that are no copies": ("merge-units(0, units=[0], into=[1])", gg.Declined, "they differ in `0.weight`"),
    "all units dropped": ("drop-units(0, units=[0, 1, 2, 3])", gg.MutationError, "each once, and not all"),
    "no units dropped": ("drop-units(0, units=[])", gg.MutationError, "name some of the 4 units"),
    "a unit dropped twice": ("drop-units(0, units=[0, 0])", gg.MutationError, "each once, and not all"),
    "a unit dropped out of range": ("drop-units(0, units=[4])", gg.MutationError, "`0` has units 0 to 3"),
    "a unit that is read": ("drop-units(0, units=[0])", gg.Declined, "neither of them zero"),
    "a frozen group dropped": ("drop-units(4, units=[0])", gg.Declined, "frozen: a model output"),
    "a kernel made larger by shrinking": ("shrink-kernel(0, to=[5, 5])", gg.MutationError, "smaller sizes are wanted"),
    "the same kernel": ("shrink-kernel(0, to=[3, 3])", gg.MutationError, "has that kernel already"),
    "a kernel of another rank": ("shrink-kernel(0, to=[1])", gg.MutationError, r"has a kernel of \(3, 3\)"),
    "another parity when shrinking": ("shrink-kernel(0, to=[2, 2])", gg.Declined, "the parity changes"),
    "a kernel that pads nothing": ("shrink-kernel(0, to=[1, 1])", gg.Declined, "would put out more"),
    "an activation folded": ("fold-batch-norm(2)", gg.Declined, "no batch norm of torch.nn"),
    "a settled share of another name": (
        ["swap-activation(2, to=gelu)", "settle-activation(2, keep=both)"],
        gg.MutationError,
        "there are new and old",
    ),
    "no choice under way": ("settle-operators(0)", gg.Declined, "no choice between operators at `0`"),
    # blocks and the interface
    "heads without attention": ("add-heads(0)", gg.Declined, "no attention in this graph"),
    "no heads": ("add-heads(0, extra=0)", gg.MutationError, "at least 1 head"),
    "a truth that is none": ("add-heads(0, shared=maybe)", gg.MutationError, "wants true or false, not 'maybe'"),
    "no vocabulary": ("grow-vocabulary(0, extra=1)", gg.MutationError, "no table that tokens are looked up in"),
    "no positions": ("grow-positions(0, extra=1)", gg.MutationError, "no table whose first rows are read"),
    "no class": ("grow-outputs(4, extra=0)", gg.MutationError, "at least 1 must be added"),
    "an input without channels": ("grow-inputs(4, extra=1)", gg.Declined, "reads no axis of an input"),
    "one expert": ("upcycle-experts(4, experts=1)", gg.MutationError, "at least 2 experts"),
    "an expert of maps": ("upcycle-experts(0)", gg.Declined, "no features of each token"),
    "no operators to choose from": ("mix-operators(0, choices=[])", gg.MutationError, "at least one, and none twice"),
    "hidden channels of a pool": ("add-branch(0, kind=pool, hidden=3)", gg.MutationError, "has none; leave it out"),
    "an unknown kind of branch": ("add-branch(0, kind=twig)", gg.MutationError, "there are auto, conv, depthwise"),
    "hidden channels below zero": ("add-branch(0, hidden=-1)", gg.MutationError, "a number of channels or 0"),
    # text
    "a run that goes down": ("split(0, units=[3..1])", gg.MutationError, "a run of numbers that goes up"),
    "a number for a mutation": (3, gg.MutationError, "cannot read 3: a mutation reads"),
    "an option without its name": ("widen(0, 3)", gg.MutationError, "`3` has no option name"),
    "no text at all": ("", gg.MutationError, "cannot read ''"),
    "another language": ("widen 0 by 3", gg.MutationError, r"reads `pass\(site, option=value\)`"),
}


@pytest.mark.parametrize("name", sorted(MUTATIONS))
def test_what_cannot_be_applied_changes_nothing(name: str) -> None:
    mutations, error, message = MUTATIONS[name]
    model = net()
    graph = gg.trace(model, IMAGE)
    optimizer = torch.optim.AdamW(graph.module.parameters())
    graph.module(torch.randn(2, 3, 8, 8)).square().mean().backward()
    optimizer.step()
    before = fingerprint(model, optimizer)
    with pytest.raises(error, match=message):
        gg.apply(graph, mutations, optimizer=optimizer)
    assert same(fingerprint(model, optimizer), before)


def test_an_unknown_optimizer_is_refused_and_unchanged() -> None:
    graph = gg.trace(net(), IMAGE)
    optimizer = torch.optim.Rprop(graph.module.parameters())
    with pytest.raises(gg.OptimizerError, match=r"known are Adagrad, Adam, AdamW, .*SGD"):
        gg.apply(graph, "widen(0, extra=1)", optimizer=optimizer)


def test_nan_weights_are_refused() -> None:
    model = net()
    with torch.no_grad():
        model.get_parameter("0.weight")[0, 0, 0, 0] = float("nan")
    with pytest.raises(gg.Unsupported, match=r"`0.weight` holds NaN"):
        gg.apply(gg.trace(model, IMAGE), "widen(0, extra=1)")


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_seeds_out_of_range(seed: int) -> None:
    with pytest.raises(gg.MutationError, match="seed"):
        gg.apply(gg.trace(net(), IMAGE), "widen(0, extra=1)", seed=seed)
