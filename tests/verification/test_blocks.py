"""Blocks that were put in: preserved while closed, flagged where they are not."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import graphgrow as gg
from tests.verification.small_net import damaged, small_net, traced

BLOCKS = [
    "deepen(2)",
    "deepen(4, kind=identity)",
    "deepen(6, hidden=5)",
    "add-skip(2, target=4)",
    "deepen(0, kind=identity)",
]


class Residual(nn.Module):
    """A residual block between two convolutions, or (post) one that ends in a norm."""

    def __init__(self, post: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.head = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 2, 1)
        self.block = ResidualBlock(post)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.head(self.block(self.stem(x)))
        return result


class ResidualBlock(nn.Module):
    def __init__(self, post: bool) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu = nn.Conv2d(6, 5, 3, padding=1), nn.BatchNorm2d(5), nn.ReLU(inplace=True)
        self.conv2, self.norm = nn.Conv2d(5, 6, 3, padding=1), nn.BatchNorm2d(6) if post else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.norm(self.conv2(self.relu(self.bn1(self.conv1(x)))) + x)
        return result


def test_blocks_are_preserved_alone_and_among_growth_in_width() -> None:
    graph = traced()
    grown = gg.apply(graph, [*BLOCKS, "widen(2_deepen.conv1, extra=2)", "split(0)", "deepen(2)", "widen(3, extra=1)"])
    verdict = gg.verify(graph, grown)
    assert verdict.preserved is True, verdict
    assert verdict.modes == ("eval", "train")
    for post in (False, True):
        base = gg.trace(Residual(post), torch.randn(2, 3, 8, 8))
        copied = gg.apply(base, ["deepen(block, kind=copy)", "widen(stem, extra=2)", "deepen(block_deepen, kind=copy)"])
        assert gg.verify(base, copied).preserved is True


APART = [
    "split(3, units=[1])", "deepen(4, kind=identity)", "split(4_deepen.linear, units=[2])", "widen(3, extra=1)",
    "deepen(4_deepen.activation, kind=identity)", "widen(4_deepen.activation_deepen.linear, extra=2)",
    "deepen(4, kind=conv)", "split(3)",
]  # fmt: skip


def test_a_site_and_the_layer_behind_it_grow_apart() -> None:
    """A layer that starts as identity has groups of its own in front and behind."""
    base = traced()
    assert gg.verify(base, gg.apply(base, ["deepen(4, kind=identity)", "widen(4_deepen.linear, extra=3)"])).preserved
    assert gg.verify(base, gg.apply(base, ["deepen(4, kind=identity)", "split(3)"])).preserved
    graph, grown = damaged(lambda module: None, APART)
    verdict = gg.verify(graph, grown)
    assert verdict.preserved is True, verdict
    with torch.no_grad():
        grown.module.get_parameter("4_deepen.linear.bias")[0] += 1e-6
    verdict = gg.verify(graph, grown)
    assert verdict.preserved is False
    assert verdict.first_difference == grown.steps[4].moved[grown.steps[1].moved["_4"]]


WRONG_BLOCKS: dict[str, tuple[list[str], str]] = {  # what is grown, and the entry that is then moved by 1e-6
    "a closed convolution": (["deepen(2)"], "2_deepen.conv2.weight"),
    "its bias": (["deepen(2)"], "2_deepen.conv2.bias"),
    "a closed linear map": (["deepen(6, hidden=5)"], "6_deepen.linear2.weight"),
    "an identity": (["deepen(4, kind=identity)"], "4_deepen.linear.weight"),
    "a slope": (["deepen(0, kind=identity)"], "0_deepen.activation.weight"),
    "a gate": (["add-skip(0, target=2)"], "2_add_skip.gate.gate"),
    "a projection": (["add-skip(2, target=4)"], "4_add_skip.projection.weight"),
    "among growth": (["deepen(2)", "widen(0, extra=2)", "split(3)", "deepen(2)"], "2_deepen.conv2.weight"),
}


@pytest.mark.parametrize("name", sorted(WRONG_BLOCKS))
def test_a_block_that_is_nearly_closed_is_flagged(name: str) -> None:
    mutations, parameter = WRONG_BLOCKS[name]
    graph, grown = damaged(lambda module: module.get_parameter(parameter).view(-1)[:1].add_(1e-6), mutations)
    verdict = gg.verify(graph, grown)
    assert verdict.preserved is False
    assert [verdict.first_difference] == list(grown.steps[0].moved.values())


@pytest.mark.parametrize("post", [False, True])
def test_a_copy_that_is_not_closed_is_flagged(post: bool) -> None:
    """The copy's last map is opened by a millionth; behind a norm it is the gate."""
    base = gg.trace(Residual(post), torch.randn(2, 3, 8, 8))
    copied = gg.apply(base, "deepen(block, kind=copy)", share=False)
    name = "block_deepen_gate.gate.gate" if post else "block_deepen.conv2.weight"
    with torch.no_grad():
        copied.module.get_parameter(name).view(-1)[:1].add_(1e-6)
    verdict = gg.verify(base, copied)
    assert verdict.preserved is False
    assert verdict.first_difference == next(iter(copied.steps[-1].moved.values()))


def test_a_pass_that_forgets_to_close_is_flagged(monkeypatch: pytest.MonkeyPatch) -> None:
    base = gg.trace(Residual(), torch.randn(2, 3, 8, 8))
    with monkeypatch.context() as patch:
        patch.setattr("graphgrow.passes.deepen.set_to_zero", lambda module, path: None)
        copied = gg.apply(base, "deepen(block, kind=copy)")
    verdict = gg.verify(base, copied)
    assert verdict.preserved is False
    assert verdict.first_difference == copied.steps[-1].moved["block_norm"]


def test_a_zero_head_hides_no_open_block() -> None:
    model = small_net()
    nn.init.zeros_(model.get_parameter("7.weight"))
    graph = gg.trace(model, torch.randn(2, 3, 8, 8))
    grown = gg.apply(graph, "deepen(2)")
    assert gg.verify(graph, grown).preserved is True
    with torch.no_grad():
        grown.module.get_parameter("2_deepen.conv2.bias").add_(1e-6)
    assert gg.verify(graph, grown).preserved is False


def test_statistics_that_are_updated_twice_are_flagged() -> None:
    """A block whose batch norm has the parent's buffers for its own: it computes the same, and leaves another mean."""
    graph = traced()
    grown = gg.apply(graph, "deepen(2)")
    norm, theirs = grown.module.get_submodule("2_deepen.norm"), grown.module.get_submodule("1")
    norm._buffers.update(theirs._buffers)
    verdict = gg.verify(graph, grown)
    assert verdict.preserved is False
    assert {check.mode for check in verdict.checks if not check.passed} == {"train"}
    assert {check.what for check in verdict.checks if not check.passed} == {"buffers after the step"}


def test_a_reader_of_another_value_is_flagged() -> None:
    """A reader that was redirected to the wrong node."""
    graph = traced()
    grown = gg.apply(graph, ["deepen(2)", "deepen(4)"], share=False)
    module = grown.module
    reader = grown.sites.find("3")
    reader.replace_input_with(reader.all_input_nodes[0], grown.sites.find("1"))
    module.recompile()
    verdict = gg.verify(graph, grown)
    assert verdict.preserved is False
    assert verdict.first_difference == reader.name


def test_a_block_that_was_taken_away_may_come_again_with_other_sizes() -> None:
    """Its nodes and parameters have the names of the first one."""
    torch.manual_seed(0)
    graph = gg.trace(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), torch.randn(5, 3))
    texts = ["deepen(1, kind=mlp)", "split(0)", "drop-branch(1_deepen:add)", "deepen(1, kind=mlp)", "split(0)"]
    grown = gg.apply(graph, texts)
    verdict = gg.verify(graph, grown)
    assert verdict.preserved is True, verdict
    assert gg.verify(gg.apply(graph, texts[:1]), grown).preserved is True
