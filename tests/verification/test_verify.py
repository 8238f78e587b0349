"""gg.verify says yes to what is preserved, no to what is not, and nothing where nothing can be said."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import fx, nn

import graphgrow as gg
from graphgrow.verification.sensitivity import weights_that_matter
from tests.verification.small_net import damaged, small_net, traced


def test_a_right_rewrite_is_preserved_in_both_modes() -> None:
    graph = traced()
    verdict = gg.verify(graph, gg.apply(graph, ["widen(0, extra=3)", "split(3)"]))
    assert verdict.preserved is True
    assert bool(verdict)
    assert verdict.modes == ("eval", "train")
    assert "planted" in str(verdict)
    nearest = max(
        (check for check in verdict.checks if check.bound > 0), key=lambda check: check.max_error / check.bound
    )
    assert (verdict.max_error, verdict.bound) == (nearest.max_error, nearest.bound)
    assert 0 < verdict.max_error < verdict.bound
    assert {check.what for check in verdict.checks} >= {"nodes, float64", "outputs, float64", "buffers after the step"}


def nudge_largest(module: fx.GraphModule) -> None:
    example = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    name, position = next(weights_that_matter(copy.deepcopy(module).double(), ((example,), {}), set()))
    module.get_parameter(name).view(-1)[position] *= 1 + 1e-6


def set_entry(name: str, index: tuple[int, ...], value: float) -> Callable[[fx.GraphModule], object]:
    def change(module: fx.GraphModule) -> None:
        tensor = dict([*module.named_parameters(), *module.named_buffers()])[name]
        tensor[index] += value

    return change


WRONG = {
    "one weight by one part in a million": (nudge_largest, ["widen(0, extra=2)"]),
    "a reading weight that is not zero": (set_entry("3.weight", (0, 8, 1, 1), 1e-3), ["widen(0, extra=2)"]),
    "a forgotten bias": (set_entry("3.bias", (2,), 1e-4), ["widen(3, extra=2)"]),
    "copies counted twice": (set_entry("3.weight", (0, 8, 1, 1), 0.1), ["split(0)"]),
    "a stale running mean": (set_entry("1.running_mean", (0,), 1e-3), ["widen(0, extra=2)"]),
    "a shifted flatten order": (
        lambda module: module.get_parameter("7.weight").copy_(module.get_parameter("7.weight").roll(1, dims=1)),
        ["widen(3, extra=1)"],
    ),
    "a copy that is not one, behind a batch norm": (set_entry("0.weight", (9, 0, 1, 1), 1e-2), ["split(0)"]),
}


@pytest.mark.parametrize("name", sorted(WRONG))
def test_a_wrong_rewrite_is_flagged(name: str) -> None:
    change, mutations = WRONG[name]
    verdict = gg.verify(*damaged(change, mutations))
    assert verdict.preserved is False
    assert "NOT preserved" in str(verdict)


def test_the_first_node_that_parts_is_named() -> None:
    verdict = gg.verify(*damaged(set_entry("3.weight", (0, 0, 1, 1), 1e-3), ["widen(0, extra=2)"]))
    assert verdict.first_difference == "_3"


def test_a_zero_head_does_not_fool_it() -> None:
    model = small_net()
    nn.init.zeros_(model.get_parameter("7.weight"))
    nn.init.zeros_(model.get_parameter("7.bias"))
    graph = gg.trace(model, torch.randn(2, 3, 8, 8))
    right = gg.verify(graph, gg.apply(graph, "widen(0, extra=2)"))
    assert right.preserved is True
    assert any("refilled" in note for note in right.notes)
    # without a ledger there is nothing to apply again
    assert gg.verify(model, copy.deepcopy(model), inputs=torch.randn(2, 3, 8, 8)).preserved is None


def test_the_users_own_module_can_be_the_parent() -> None:
    model = small_net()
    nn.init.zeros_(model.get_parameter("7.weight"))
    grown = gg.apply(gg.trace(model, torch.randn(2, 3, 8, 8)), ["widen(0, extra=2)", "split(3)"])
    verdict = gg.verify(model, grown)
    assert verdict.preserved is True
    assert verdict.modes == ("eval", "train")
    with torch.no_grad():
        model.get_parameter("3.bias")[0] += 0.5
        grown.module.get_parameter("3.bias")[0] += 1.0  # no longer shared: its group was split
    assert gg.verify(model, grown).preserved is False


def test_a_zero_head_behind_a_layer_norm_raises_no_false_alarm() -> None:
    """The head's fresh columns read units that are zero up to rounding, where the parent's output is exactly zero."""
    model = nn.Sequential(nn.Linear(5, 12), nn.LayerNorm(12), nn.Linear(12, 3))
    nn.init.zeros_(model.get_parameter("2.weight"))
    nn.init.zeros_(model.get_parameter("2.bias"))
    graph = gg.trace(model, torch.randn(4, 5))
    for extra in (1, 5, 7):
        verdict = gg.verify(graph, gg.apply(graph, f"widen(0, extra={extra})"))
        assert verdict.preserved is True, verdict


class NearlyClosed(nn.Module):
    """A residual branch behind a tiny layer scale, as in ConvNeXt."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner, self.outer = nn.Linear(5, 6), nn.Linear(6, 8), nn.Linear(8, 6)
        self.scale = nn.Parameter(torch.full((6,), 1e-11))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return x + self.scale * self.outer(torch.relu(self.inner(x)))


def test_a_nearly_closed_branch_is_compared_on_refilled_weights() -> None:
    graph = gg.trace(NearlyClosed(), torch.randn(4, 5))
    verdict = gg.verify(graph, gg.apply(graph, "split(inner)"))
    assert verdict.preserved is True, verdict
    assert any("does not show at the outputs: compared on refilled weights" in note for note in verdict.notes)


def test_why_nothing_can_be_said_behind_a_sign_is_said_once() -> None:
    """The notes came four times, and the checks on refilled weights were not told from the first."""
    model = Signs()
    graph = gg.trace(model, torch.randn(4, 5))
    verdict = gg.verify(graph, gg.apply(graph, "widen(inner, extra=2)"))
    assert verdict.preserved is None, verdict
    assert verdict.reason.endswith("as behind a sign or a rounding; node by node both compute the same")
    assert len(set(verdict.notes)) == len(verdict.notes)
    assert [check.what for check in verdict.checks].count("outputs, float64") == 1
    assert [check.what for check in verdict.checks].count("outputs, float64, refilled") == 3


class Signs(nn.Module):
    """A net of binary activations."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.outer, self.head = nn.Linear(5, 8), nn.Linear(8, 6), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.head(torch.sign(self.outer(torch.sign(self.inner(x)))))
        return result


def test_a_small_mistake_that_no_output_shows_is_seen_at_its_node() -> None:
    """One part in a million of one weight, and a trillionth of that at the outputs."""
    graph = gg.trace(NearlyClosed(), torch.randn(4, 5))
    grown = gg.apply(graph, "widen(inner, extra=2)", share=False)
    with torch.no_grad():
        grown.module.get_parameter("outer.weight")[0, 0] *= 1 + 1e-6
    verdict = gg.verify(graph, grown)
    assert (verdict.preserved, verdict.first_difference) == (False, "outer"), verdict


def test_a_zero_head_hides_no_wrong_rewrite() -> None:
    """A reading weight off zero shows at its own node, though the output is zero whatever it holds."""
    model = small_net()
    nn.init.zeros_(model.get_parameter("7.weight"))
    graph = gg.trace(model, torch.randn(2, 3, 8, 8))
    grown = gg.apply(graph, "widen(0, extra=2)")
    with torch.no_grad():
        grown.module.get_parameter("3.weight")[:, 8:] += 0.1
    assert gg.verify(graph, grown).preserved is False


def test_rounded_growth_is_shown_exact_in_float64_and_checked_to_be_its_ledger() -> None:
    graph = gg.trace("graphgrow:vit")
    grown = gg.apply(graph, "widen(patch_embed, extra=8)")
    verdict = gg.verify(graph, grown)
    assert verdict.preserved is True
    assert any("to the bit" in note for note in verdict.notes)
    with torch.no_grad():
        weight = grown.module.get_parameter("patch_embed.weight")
        weight.view(-1)[weight.abs().argmax()] *= 1 + 1e-6
    assert gg.verify(graph, grown).preserved is False


def test_training_the_child_is_not_preserving() -> None:
    graph = traced()
    grown = gg.apply(graph, "widen(0, extra=2)", share=False)
    optimizer = torch.optim.SGD(grown.module.parameters(), lr=0.1)
    grown.module(torch.randn(2, 3, 8, 8)).square().sum().backward()
    optimizer.step()
    assert gg.verify(graph, grown).preserved is False


def test_neither_side_is_changed() -> None:
    graph = traced()
    grown = gg.apply(graph, "split(0)")
    graph.module.train()
    grown.module.eval()
    before = [{k: v.clone() for k, v in side.module.state_dict().items()} for side in (graph, grown)]
    random_state = torch.get_rng_state()
    gg.verify(graph, grown)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert graph.module.training
    assert not grown.module.training
    for side, old in zip((graph, grown), before, strict=True):
        assert all(torch.equal(v, old[k]) for k, v in side.module.state_dict().items())
        assert all(p.grad is None for p in side.module.parameters())


def test_dropout_between_copies_and_readers_is_declared_eval_only() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 2))
    graph = gg.trace(model, torch.randn(3, 4))
    assert gg.verify(graph, gg.apply(graph, "split(0)")).modes == ("eval",)
    assert gg.verify(graph, gg.apply(graph, "widen(0, extra=1)")).modes == ("eval", "train")


def test_other_inputs_can_be_added() -> None:
    graph = traced()
    grown = gg.apply(graph, "split(0)")
    assert gg.verify(graph, grown, inputs=torch.randn(4, 3, 12, 10) * 100).preserved is True


def test_inputs_that_the_parent_itself_fails_on_leave_it_undetermined() -> None:
    graph = traced()
    verdict = gg.verify(graph, gg.apply(graph, "widen(0, extra=3)"), torch.randn(2, 4, 8, 8))
    assert verdict.preserved is None
    assert "cannot be run on the inputs that were given" in verdict.reason


def test_nan_weights_are_refused() -> None:
    graph = traced()
    grown = gg.apply(graph, "split(0)", share=False)
    with torch.no_grad():
        grown.module.get_parameter("0.bias")[0] = float("nan")
    with pytest.raises(gg.NotPreserved, match=r"`0.bias` holds NaN"):
        gg.verify(graph, grown)


def test_a_ledger_that_is_not_the_parents_is_compared_by_outputs() -> None:
    graph = traced()
    first, second = gg.apply(graph, "widen(0, extra=2)"), gg.apply(graph, "split(3)")
    verdict = gg.verify(first, second)
    assert verdict.preserved is True
    assert verdict.modes == ("eval",)
    assert any("no common ledger" in note for note in verdict.notes)
    relabelled = dataclasses.replace(second, base="graphgrow:resnet")
    assert gg.verify(graph, relabelled).preserved is True


def test_new_units_of_a_branch_may_write_where_its_old_ones_are_closed() -> None:
    """The sum that carries a value on differs from it on units that were appended behind the branch."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    graph = gg.trace(model, torch.randn(5, 3, dtype=torch.float64))
    grown = gg.apply(graph, ["add-branch(0, kind=mlp)", "widen(0, extra=2)", "split(0, units=[1])"], seed=3)
    verdict = gg.verify(graph, grown)
    assert verdict.preserved, verdict


def test_a_model_that_was_traced_with_one_sample_is_compared_with_two_in_train_mode() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(6), nn.Linear(6, 4))
    graph = gg.trace(model.eval(), torch.randn(1, 3, 8, 8))
    verdict = gg.verify(graph, gg.apply(graph, "widen(0, extra=2)"))
    assert verdict.preserved is True, verdict
    assert verdict.modes == ("eval", "train")
    assert any(check.mode == "train" and check.what == "buffers after the step" for check in verdict.checks)


def test_a_parent_that_cannot_run_in_train_mode_is_no_mistake_of_the_child() -> None:
    class One(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.map, self.norm, self.out = nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(self.norm(self.map(x)).reshape(1, 4))

    torch.manual_seed(0)
    graph = gg.trace(One().eval(), torch.randn(1, 3))
    verdict = gg.verify(graph, gg.apply(graph, "widen(map, extra=2)"))
    assert verdict.preserved is None, verdict
    assert "the parent itself cannot be run" in verdict.reason


def test_sparse_gradients_are_read_as_dense_ones() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(7, 4, sparse=True), nn.ReLU(), nn.Linear(4, 2))
    graph = gg.trace(model, torch.arange(5))
    for text in ("widen(0, extra=2)", "split(0)"):
        assert gg.verify(graph, gg.apply(graph, text)).preserved is True


class Codebook(nn.Module):
    """A running mean of the hidden values, overwritten in train mode by two operators in a row."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.hidden, self.last = nn.Linear(3, 4), nn.Linear(4, 8), nn.Linear(8, 2)
        self.register_buffer("mean", torch.linspace(-1, 1, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        value = torch.tanh(self.first(x))
        with torch.no_grad():
            self.mean.mul_(0.9).add_(value.mean(0), alpha=0.1)
        result: torch.Tensor = self.last(torch.relu(self.hidden(value - self.mean)))
        return result


def test_a_buffer_that_is_overwritten_twice_raises_no_false_alarm() -> None:
    torch.manual_seed(0)
    graph = gg.trace(Codebook().double(), torch.randn(5, 3, dtype=torch.float64))
    grown = gg.apply(graph, "widen(hidden, extra=2)")
    assert gg.verify(graph, grown).preserved
    weight = grown.module.get_parameter("hidden.weight")
    weight.data[0] += 1e-4
    assert gg.verify(graph, grown).preserved is False


class Mixed(nn.Module):
    """A body in bfloat16 whose casts are named, norm and head in float32."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.norm, self.head = nn.Linear(6, 8).bfloat16(), nn.LayerNorm(8), nn.Linear(8, 2)
        self.inner = nn.Linear(8, 8).bfloat16()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.body(x.bfloat16()).float())
        result: torch.Tensor = self.head(y + self.inner(y.to(torch.bfloat16)).tanh().float())
        return result


def test_casts_that_are_named_follow_the_weights() -> None:
    """The gradients that say which weight matters are taken in another dtype than the casts name."""
    torch.manual_seed(0)
    graph = gg.trace(Mixed(), torch.randn(3, 6))
    for mutation in ("grow-outputs(head)", "split(inner)"):
        verdict = gg.verify(graph, gg.apply(graph, mutation))
        assert verdict.preserved, str(verdict)
        assert any("planted" in note for note in verdict.notes)
