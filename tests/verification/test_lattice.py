"""On whole numbers an exact rewrite agrees bit for bit; where that cannot be asked, the verdict says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import graphgrow as gg
from graphgrow.rewrite import tensors
from graphgrow.verification.exactness import grid
from graphgrow.verification.lattice import _variance, on_lattice
from tests.rewrite.small_models import Forward

MODES = ("eval", "lattice")


def net() -> gg.Graph:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.MaxPool2d(2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5),
    )  # fmt: skip
    return gg.trace(model, torch.randn(2, 3, 8, 8))


def lattice_check(verdict: gg.Verdict) -> Any:
    return next((check for check in verdict.checks if check.mode == "lattice"), None)


@pytest.mark.parametrize("text", ["widen(0, extra=3)", "split(0)", "split(3)", "deepen(2)", "enlarge-kernel(0)"])
def test_right_rewrites_agree_bit_for_bit(text: str) -> None:
    graph = net()
    verdict = gg.verify(graph, gg.apply(graph, text), modes=MODES)
    assert verdict.preserved is True, verdict
    check = lattice_check(verdict)
    assert (check.max_error, check.bound) == (0.0, 0.0)
    assert check.count > 10


def test_one_unit_of_the_lattice_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A share that is off by the last of its 25 bits, where the ledger is applied in float64 alone."""
    share = tensors._share

    def nearly(new: torch.Tensor, growth: Any, occurrence: int, *rest: Any) -> None:
        share(new, growth, occurrence, *rest)
        if new.dtype == torch.float64:
            new[new != 0] += 2.0**-25

    graph = net()
    with monkeypatch.context() as patch:
        patch.setattr(tensors, "_share", nearly)
        verdict = gg.verify(graph, gg.apply(graph, "split(0)"), modes=MODES)
    assert [check.mode for check in verdict.checks if not check.passed] == ["lattice"], verdict
    assert verdict.first_difference == "_3"


def test_a_norm_that_divides_leaves_the_lattice() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    graph = gg.trace(model, torch.randn(2, 3))
    verdict = gg.verify(graph, gg.apply(graph, "split(0)"), modes=MODES)
    assert verdict.preserved is True
    assert lattice_check(verdict) is None
    assert "lattice: does not apply, `_1` (LayerNorm) leaves it" in verdict.notes


def test_many_shares_of_one_weight_leave_the_range_and_raise_no_alarm() -> None:
    """Each split adds 25 bits to the shares: three are more than float64 holds."""
    graph = net()
    grown = gg.apply(graph, ["split(0)"] * 4)
    verdict = gg.verify(graph, grown, modes=MODES)
    assert verdict.preserved is True, verdict
    check = lattice_check(verdict)
    assert check is not None or any("leave the range" in note for note in verdict.notes)


def test_the_weights_are_whole_and_few() -> None:
    module = on_lattice(net(), 0, multiple=9).module
    weight = module.get_parameter("0.weight")
    assert torch.equal(weight, weight.round())
    assert int((weight != 0).flatten(1).sum(1).max()) == 3
    norm = module.get_submodule("1")
    assert bool((norm.running_var + norm.eps == 1).all())
    assert not bool((module.get_parameter("7.bias") % 9).any())


def test_the_grid_of_a_number_is_its_lowest_bit() -> None:
    numbers = torch.tensor([1.0, 6.0, 0.375, -20.0, 0.0, 2.0**-60 * 3], dtype=torch.float64)
    assert grid(numbers).tolist() == [1.0, 2.0, 0.125, 4.0, float("inf"), 2.0**-60]


def images(run: Callable[[Any, Any], Any], **members: nn.Module) -> gg.Graph:
    """A convolution to 4 channels on maps of 6 x 6, what is given, and a linear map."""
    torch.manual_seed(0)
    model = Forward(
        lambda m, x: m.last(run(m, m.first(x)).flatten(1)), first=nn.Conv2d(3, 4, 3, padding=1),
        last=nn.LazyLinear(2), **members,
    )  # fmt: skip
    model(torch.randn(2, 3, 6, 6))
    return gg.trace(model, torch.randn(2, 3, 6, 6))


ON_IT: dict[str, Callable[[], gg.Graph]] = {
    "slopes": lambda: images(lambda m, h: m.act(h), act=nn.PReLU(4)),
    "means of whole windows": lambda: images(lambda m, h: m.pool(h), pool=nn.AvgPool2d(3)),
    "padding that counts": lambda: images(lambda m, h: m.pool(h), pool=nn.AvgPool2d((2, 3), padding=1)),
    "a mean by a method": lambda: images(lambda m, h: h.mean((2, 3))),
    "a batch norm of a large eps": lambda: images(lambda m, h: m.norm(h), norm=nn.BatchNorm2d(4, eps=0.3)),
    "tokens": lambda: gg.trace(
        Forward(lambda m, x: m.last(m.first(x)), first=nn.Embedding(5, 4), last=nn.Linear(4, 2)),
        torch.randint(0, 5, (2, 3)),
    ),
}
OFF_IT: dict[str, tuple[Callable[[], gg.Graph], str]] = {
    "padding that does not count": (
        lambda: images(lambda m, h: m.pool(h), pool=nn.AvgPool2d(2, padding=1, count_include_pad=False)),
        "averages over windows of several sizes",
    ),
    "windows beyond the border": (
        lambda: images(lambda m, h: m.pool(h), pool=nn.AvgPool2d(4, ceil_mode=True)),
        "averages over windows of several sizes",
    ),
    "windows that overlap": (
        lambda: images(lambda m, h: m.pool(h), pool=nn.AdaptiveAvgPool2d(4)),
        "averages over windows of several sizes",
    ),
    "a function of windows": (
        lambda: images(lambda m, h: F.avg_pool2d(h, 2)),
        "averages over windows of several sizes",
    ),
    "means of many numbers": (
        lambda: images(lambda m, h: F.pad(h, (0, 249, 0, 249)).mean((2, 3)) + h.mean((2, 3))),
        "its means are over",
    ),
    "an operator that is not known to stay": (lambda: images(lambda m, h: torch.tanh(h)), "(tanh) leaves it"),
}


@pytest.mark.parametrize("name", ON_IT)
def test_what_stays_on_the_lattice_is_compared_bit_for_bit(name: str) -> None:
    graph = ON_IT[name]()
    verdict = gg.verify(graph, gg.apply(graph, "split(first)"), modes=MODES)
    assert verdict.preserved is True, verdict
    assert lattice_check(verdict).bound == 0.0, verdict


@pytest.mark.parametrize("name", OFF_IT)
def test_what_leaves_the_lattice_is_told(name: str) -> None:
    made, words = OFF_IT[name]
    graph = made()
    verdict = gg.verify(graph, gg.apply(graph, "split(first)"), modes=MODES)
    assert verdict.preserved is True, verdict
    assert lattice_check(verdict) is None
    assert any(note.startswith("lattice: does not apply") and words in note for note in verdict.notes), verdict.notes


def test_what_is_exact_for_the_present_numbers_alone_has_no_lattice() -> None:
    graph = images(lambda m, h: h)
    wide = gg.apply(graph, "widen(first, extra=2)")
    verdict = gg.verify(wide, gg.apply(wide, "drop-units(first, units=[4, 5])"), modes=MODES)
    assert verdict.preserved is True, verdict
    assert "lattice: does not apply, a mutation is exact for the present numbers alone" in verdict.notes


@pytest.mark.parametrize("eps", [0.0, 1e-5, 1e-3, 0.1, 0.3, 1e-12, 0.7])
def test_the_variance_makes_the_divisor_one(eps: float) -> None:
    assert _variance(eps) + eps == 1.0


@pytest.mark.parametrize(
    ("off", "proven"),
    [("table", True), ("last.weight", True), ("norm.running_mean", False)],
    ids=["a sum", "a map without a bias", "a norm, of which it is not known"],
)
def test_a_difference_is_a_mistake_where_the_operator_is_exact(
    off: str, proven: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tensor whose old entries are off by one, where the ledger is applied on the lattice alone."""
    torch.manual_seed(0)
    model = Forward(
        lambda m, x: m.last(m.norm(m.first(x)) + m.table), first=nn.Linear(3, 4), norm=nn.BatchNorm1d(4),
        table=torch.randn(4), last=nn.Linear(4, 2, bias=False),
    )  # fmt: skip
    graph = gg.trace(model, torch.randn(5, 3))
    grow = tensors.TensorGrowth.grow

    def nearly(self: tensors.TensorGrowth, old: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        new = grow(self, old, generator)
        return new + 1 if self.value.name == off else new

    grown = gg.apply(graph, "split(first)")
    monkeypatch.setattr(tensors.TensorGrowth, "grow", nearly)
    verdict = gg.verify(graph, grown, modes=MODES)
    assert verdict.preserved is not proven, verdict
    assert (lattice_check(verdict) is not None) is proven
    assert any("leave the range in which sums are exact" in note for note in verdict.notes) is not proven
