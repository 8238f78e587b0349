"""Every way in which two module trees may differ is found, and named."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable

import pytest
import torch
from torch import nn

from graphgrow.source.likeness import bits, construction_difference, difference, plain_class


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(3, 3)
        self.norm = nn.BatchNorm1d(3)
        self.last = nn.Linear(3, 3)
        self.last.bias = self.first.bias
        self.again = self.norm


def changed(change: Callable[[Pair], object]) -> Pair:
    pair = Pair()
    change(pair)
    return pair


CHANGES: dict[str, tuple[Callable[[Pair], object], str]] = {
    "value": (lambda pair: pair.first.weight.data.view(-1)[4:5].mul_(1 + 2**-23), r"first\.weight: it holds other"),
    "buffer": (lambda pair: pair.norm.running_mean.add_(1), r"norm\.running_mean: it holds other"),
    "zero's sign": (lambda pair: pair.norm.bias.data.neg_(), r"norm\.bias: it holds other"),
    "dtype": (lambda pair: pair.last.double(), "dtype"),
    "requires_grad": (lambda pair: pair.first.weight.requires_grad_(False), r"first\.weight: requires_grad is True"),
    "mode": (lambda pair: pair.norm.eval(), "`norm` is in train mode, and in eval mode"),
    "persistence": (lambda pair: pair.norm._non_persistent_buffers_set.add("running_mean"), "non-persistent"),
    "tie": (lambda pair: setattr(pair.last, "bias", nn.Parameter(pair.first.bias.detach().clone())), "share"),
    "shared module": (lambda pair: setattr(pair, "again", copy.deepcopy(pair.norm)), "share"),
    "attribute": (lambda pair: setattr(pair.norm, "eps", 1e-6), "'eps' is 1e-05, and 1e-06"),
    "further attribute": (lambda pair: setattr(pair.norm, "tag", 1), "'tag', which its constructor sets, is missing"),
    "class": (lambda pair: setattr(pair, "first", nn.Identity()), "class Linear, rebuilt as Identity"),
    "shape": (lambda pair: setattr(pair.last, "weight", nn.Parameter(torch.zeros(2, 3))), r"\(3, 3\), and \(2, 3\)"),
    "further module": (lambda pair: setattr(pair, "more", nn.ReLU()), "other submodules: more"),
    "hook": (lambda pair: pair.norm.register_forward_hook(lambda *_: None), "hooks"),
    "order": (lambda pair: pair._modules.update(first=pair._modules.pop("first")), "another order"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_each_difference_is_found(what: str) -> None:
    change, words = CHANGES[what]
    assert difference(Pair(), Pair(), set()) is None
    found = difference(Pair(), changed(change), set())
    assert found is not None
    assert re.search(words, found), found


def test_holders_may_have_another_class_and_other_attributes() -> None:
    one, other = nn.Module(), nn.ModuleList([nn.ReLU()])
    one.add_module("0", nn.ReLU())
    one.tag = "original"  # type: ignore[assignment]  # torch types attributes as tensors
    assert difference(one, other, {""}) is None
    assert difference(one, other, set()) is not None


def test_construction_looks_at_neither_numbers_nor_modes_nor_dtypes() -> None:
    other = changed(lambda pair: pair.double().eval().first.weight.data.zero_())
    assert construction_difference(Pair(), other) is None


def test_lists_of_tensors_and_weak_references_are_compared_as_what_they_are() -> None:
    assert difference(nn.LSTM(3, 4), nn.LSTM(3, 4), set()) is not None  # other numbers
    lstm = nn.LSTM(3, 4)
    assert difference(lstm, copy.deepcopy(lstm), set()) is None


def test_private_subclasses_that_add_nothing_count_as_their_base() -> None:
    class Own(nn.Linear):
        pass

    assert plain_class(nn.modules.linear.NonDynamicallyQuantizableLinear) is nn.Linear
    assert plain_class(Own) is Own
    assert plain_class(nn.LazyLinear) is nn.LazyLinear


def test_bits_tell_zeros_apart_and_nan_not() -> None:
    nan = torch.tensor([float("nan"), 1.0])
    assert torch.equal(bits(nan), bits(nan.clone()))
    assert not torch.equal(bits(torch.tensor(0.0)), bits(torch.tensor(-0.0)))
    assert torch.equal(bits(torch.arange(6.0).view(2, 3).t()), bits(torch.tensor([0.0, 3, 1, 4, 2, 5])))
