"""A module that stays the same object while its network grows: its state dictionary, copies and signature."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import nn

import graphgrow as gg
from graphgrow.errors import TrainingError
from graphgrow.train.grower import Grower
from graphgrow.train.growing import Growing, growing_in
from graphgrow.train.schedule import Interval
from tests.train import small

WIDE = "widen(0, extra=3)"
WIDER = ["split(0, units=[0, 8])", "widen(5, extra=2)"]


def grown(norm: bool = True) -> Growing:
    graph = small.graph(norm)
    growing = Growing(graph)
    growing.become(gg.apply(gg.apply(graph, WIDE, seed=3), WIDER, seed=4))
    with torch.no_grad():
        for parameter in growing.parameters():
            parameter.add_(0.1)
    return growing


@pytest.mark.parametrize("others", [[], [WIDE], ["widen(3, extra=1)", "widen(5, extra=4)"]])
def test_a_state_dictionary_rebuilds_the_network_whatever_the_other_has_become(others: list[str]) -> None:
    first, second = grown(), Growing(small.graph(norm=True))
    second.become(gg.apply(second.graph, others))
    through = load(save(first.state_dict()))
    assert second.load_state_dict(through).missing_keys == []
    assert second.graph.ledger == first.graph.ledger
    assert torch.equal(second.eval()(small.INPUTS), first.eval()(small.INPUTS))
    assert {id(p) for p in second.parameters()}.isdisjoint({id(p) for p in second.base.module.parameters()})
    second.load_state_dict(Growing(small.graph(norm=True)).state_dict())
    assert len(second.graph.ledger) == 0


def test_it_works_inside_another_module_and_says_what_is_missing() -> None:
    outer = nn.Sequential(nn.Linear(6, 6), grown())
    other = nn.Sequential(nn.Linear(6, 6), Growing(small.graph(norm=True)))
    state = outer.state_dict()
    other.load_state_dict(state)
    assert torch.equal(other.eval()(small.INPUTS), outer.eval()(small.INPUTS))
    assert growing_in(outer) is outer[1]
    with pytest.raises(TrainingError, match=r"no entry `1\.ledger`"):
        other.load_state_dict({name: tensor for name, tensor in state.items() if "ledger" not in name})
    with pytest.raises(TrainingError, match="0 growing modules in Linear"):
        growing_in(nn.Linear(1, 1))
    with pytest.raises(TrainingError, match="did not grow from"):
        Growing(gg.apply(small.graph(norm=True), "widen(3, extra=1)")).load_state_dict(grown().state_dict())


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(7, 4), nn.Linear(4, 7, bias=False)
        self.up, self.down = nn.Linear(4, 5), nn.Linear(5, 4)
        self.head.weight = self.embed.weight

    def forward(self, tokens: torch.Tensor, scale: float = 2.0) -> torch.Tensor:
        return self.head(self.down(torch.relu(self.up(self.embed(tokens) * scale))))


def test_tied_tensors_are_saved_once_and_stay_tied() -> None:
    tokens = torch.tensor([[1, 2, 3], [4, 0, 6]])
    torch.manual_seed(0)
    first, second = (Growing(gg.trace(Tied(), tokens)) for _ in range(2))
    first.become(gg.apply(first.graph, "widen(up, extra=2)"))
    state = load(save(first.state_dict()))  # which refuses tensors that share memory
    second.load_state_dict(state)
    assert torch.equal(second(tokens), first(tokens))
    assert second.module.head.weight is second.module.embed.weight


def test_frameworks_see_the_arguments_of_the_network() -> None:
    growing = Growing(gg.trace(Tied(), torch.tensor([[1]])))
    assert list(inspect.signature(growing.forward).parameters) == ["tokens", "scale"]
    assert next(iter(inspect.signature(type(growing).forward).parameters)) == "self"
    assert "tokens" not in inspect.signature(Growing.forward).parameters


def test_a_copy_has_a_network_of_its_own_and_is_observed_by_nobody() -> None:
    growing = grown().eval()
    growing.grower = Grower(growing.graph, None, "net2net")
    copied = copy.deepcopy(growing)
    assert copied.grower is None
    assert not copied.training
    assert torch.equal(copied(small.INPUTS), growing(small.INPUTS))
    with torch.no_grad():
        next(copied.parameters()).zero_()
    assert not torch.equal(copied(small.INPUTS), growing(small.INPUTS))
    copied.load_state_dict(growing.state_dict())


def test_training_batches_alone_are_observed() -> None:
    growing = Growing(small.graph())
    growing.grower = Grower(growing.graph, None, "dnm", every=1)
    seen: list[Any] = []
    growing.module.register_forward_pre_hook(lambda module, _: seen.append("forward" in vars(module)))
    growing.train()(small.INPUTS)
    growing.eval()(small.INPUTS)
    with torch.no_grad():
        growing.train()(small.INPUTS)
    assert seen == [True, False, False]
    assert "forward" not in vars(growing.module)


def test_what_is_cast_is_verified_and_grows_in_its_new_dtype() -> None:
    """As a Trainer of Lightning casts it with precision="bf16-true"."""
    growing = grown()
    outer = nn.Sequential(growing).to(torch.bfloat16)
    assert {spec.dtype for graph in (growing.graph, growing.base) for spec in graph.inputs.tensors} == {torch.bfloat16}
    grower = Grower(growing.graph, torch.optim.AdamW(outer.parameters()), "net2net", when=Interval(1), every=1)
    growing.grower = grower
    outer.train()(small.INPUTS.bfloat16()).square().mean().backward()
    proposal = grower.propose()
    assert proposal is not None
    growing.become(grower.apply(proposal))
    assert {parameter.dtype for parameter in outer.parameters()} == {torch.bfloat16}
    outer.double()
    assert growing.graph.inputs.tensors[0].dtype == torch.float64
    assert growing.graph.ledger.after(growing.base.ledger)
