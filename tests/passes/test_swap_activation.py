"""swap-activation: every activation to every other, in every form that a model writes them, to the bit at the start."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import graphgrow as gg
from graphgrow.blocks.activations import ACTIVATIONS
from graphgrow.graph import Graph
from graphgrow.layers import Blend
from tests.passes.claims import (
    assert_alive,
    assert_equal,
    assert_exact,
    assert_exports,
    assert_narrow,
    assert_reloads,
    gradients,
    grown,
)
from tests.preserved import assert_preserved
from tests.rewrite.small_models import Forward

# zeros of both signs, denormals, kinks, where exponentials overflow, and very large numbers
TRICKY = [0.0, 1e-310, 1e-40, 1e-3, 0.5, 1.0, 3.0, 6.0, 20.0, 88.0, 104.0, 710.0, 1e4, 1e18]
VALUES = torch.tensor([sign * value for value in TRICKY for sign in (1, -1)], dtype=torch.float64)


def between(act: Any, dims: int = 0) -> nn.Module:
    """Two linear maps, or convolutions, and an activation: a module `act`, or a function."""
    first, last = (nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 1)) if dims else (nn.Linear(3, 4), nn.Linear(4, 2))
    if isinstance(act, nn.Module):
        return Forward(lambda m, x: m.last(m.act(m.first(x))), first=first, last=last, act=act)
    return Forward(lambda m, x: m.last(act(m.first(x))), first=first, last=last)


def graph_of(act: Any) -> Graph:
    return gg.trace(between(act).double(), torch.randn(2, 3, dtype=torch.float64))


def blend_of(graph: Graph) -> Blend:
    (found,) = (part for part in graph.module.modules() if isinstance(part, Blend))
    return found


@pytest.mark.parametrize("present", ACTIVATIONS)
def test_every_activation_to_every_other(present: str) -> None:
    for dtype in (torch.float64, torch.float32):
        torch.manual_seed(0)
        graph = gg.trace(between(ACTIVATIONS[present]()).to(dtype), torch.randn(2, 3, dtype=dtype))
        x = VALUES.to(dtype)
        expected = ACTIVATIONS[present]().to(dtype)(x)
        for to in ACTIVATIONS:
            if to == present:
                with pytest.raises(gg.MutationError, match=f"to={to}: `act` is one already"):
                    gg.apply(graph, f"swap-activation(act, to={to})")
                continue
            child = gg.apply(graph, f"swap-activation(act, to={to})")
            part: Any = child.module.get_submodule("act")
            assert_equal(expected, part(x), 0.0, f"{present} to {to}")
            if not isinstance(part, Blend):
                assert (present, to) in {("relu", "prelu"), ("leaky-relu", "prelu")}
                continue
            (gradient,) = torch.autograd.grad(part(x).sum(), part.s)
            assert bool(gradient.isfinite()), f"{present} to {to}"
            part.s.data.fill_(1.0)
            assert_equal(ACTIVATIONS[to]().to(dtype)(x), part(x), 0.0, f"{present} to {to} at s = 1")


SLOPED = nn.PReLU(init=0.3)

# what the model writes; the module that the old activation must be
FORMS: dict[str, tuple[Any, nn.Module]] = {
    "module": (nn.LeakyReLU(0.3), nn.LeakyReLU(0.3)),
    "module-in-place": (nn.ELU(0.5, inplace=True), nn.ELU(0.5)),
    "module-with-option": (nn.GELU(approximate="tanh"), nn.GELU(approximate="tanh")),
    "module-beta": (nn.Softplus(beta=2.0, threshold=5.0), nn.Softplus(beta=2.0, threshold=5.0)),
    "module-with-weight": (SLOPED, SLOPED),
    "function": (F.relu, nn.ReLU()),
    "function-in-place": (lambda h: F.silu(h, inplace=True), nn.SiLU()),
    "function-position": (lambda h: F.leaky_relu(h, 0.3), nn.LeakyReLU(0.3)),
    "function-keyword": (lambda h: F.hardtanh(h, min_val=-0.5, max_val=2.0), nn.Hardtanh(-0.5, 2.0)),
    "function-gelu": (lambda h: F.gelu(h, approximate="tanh"), nn.GELU(approximate="tanh")),
    "function-softplus": (lambda h: F.softplus(h, beta=2.0), nn.Softplus(beta=2.0)),
    "torch": (torch.sigmoid, nn.Sigmoid()),
    "torch-in-place": (torch.relu_, nn.ReLU()),
    "method": (lambda h: h.tanh(), nn.Tanh()),
    "method-in-place": (lambda h: h.relu_(), nn.ReLU()),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form(form: str) -> None:
    written, module = FORMS[form]
    torch.manual_seed(0)
    graph = graph_of(written)
    (offered,) = graph.mutations("swap-activation")
    child = grown(graph, str(offered))
    assert_exact(graph, child, scales=(0.0, 1.0, 1e4, 1e18, -1e18))
    blend = blend_of(child)
    assert repr(blend.old) == repr(module)
    assert repr(blend.new) == repr(nn.GELU() if type(module) is not nn.GELU else nn.SiLU())
    assert assert_alive(graph, child) == {name for name, p in child.module.named_parameters() if p is blend.s}
    blend.s.data.fill_(0.75)
    x = torch.randn(5, 3, dtype=torch.float64)
    hidden = graph.module.first(x)
    mixed = 0.25 * module.double()(hidden) + 0.75 * blend.new(hidden)
    assert_equal(graph.module.last(mixed), child.module(x), 1e-12, "on the way")


def test_a_prelu_keeps_its_weight_and_a_new_one_learns() -> None:
    graph = graph_of(nn.PReLU(init=0.3))
    slope = graph.module.get_parameter("act.weight")
    child = grown(graph, "swap-activation(act, to=gelu)")
    assert child.module.get_parameter("act.old.weight") is slope
    own = gg.apply(graph, "swap-activation(act, to=gelu)", share=False)
    assert own.module.get_parameter("act.old.weight") is not slope
    assert torch.equal(own.module.get_parameter("act.old.weight"), slope)
    graph = graph_of(nn.GELU())
    assert assert_alive(graph, grown(graph, "swap-activation(act, to=prelu)")) == {"act.s", "act.new.weight"}


@pytest.mark.parametrize(("act", "slope"), [(nn.ReLU(inplace=True), 0.0), (nn.LeakyReLU(0.3), 0.3), (F.relu, 0.0)])
def test_from_a_leaky_relu_to_prelu_the_way_is_direct(act: Any, slope: float) -> None:
    graph = graph_of(act)
    (offered,) = graph.mutations("swap-activation")
    child = grown(graph, f"swap-activation({offered.site_name}, to=prelu)")
    (part,) = (part for part in child.module.modules() if isinstance(part, nn.PReLU))
    assert torch.equal(part.weight, torch.tensor([slope], dtype=torch.float64))
    assert_exact(graph, child)
    assert len(assert_alive(graph, child)) == 1


def test_a_slope_that_float32_rounds_is_exact_in_real_arithmetic_all_the_same() -> None:
    graph = gg.trace(between(nn.LeakyReLU(0.3)), torch.randn(2, 3))
    child = grown(graph, "swap-activation(act, to=prelu)")
    x = 100 * torch.randn(20, 3)
    assert_equal(graph.module(x), child.module(x), 0.0, "float32")
    assert gg.verify(graph, child).preserved is True


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("slope", "direct"), [(0.3, False), (0.25, True)])
def test_a_leaky_relu_of_half_precision_keeps_its_slope(dtype: torch.dtype, slope: float, direct: bool) -> None:
    """Torch computes with the slope in float32; a parameter would hold a rounded one."""
    graph = gg.trace(between(nn.LeakyReLU(slope)).to(dtype), torch.randn(2, 3).to(dtype))
    child = grown(graph, "swap-activation(act, to=prelu)")
    assert isinstance(child.module.get_submodule("act"), nn.PReLU if direct else Blend)
    x = (100 * torch.randn(20, 3)).to(dtype)
    assert_equal(graph.module(x), child.module(x), 0.0, str(dtype))


class Twice(nn.Module):
    """One activation, called twice, and what it reads the first time read once more."""

    def __init__(self, act: nn.Module) -> None:
        super().__init__()
        self.a, self.b, self.c, self.act = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2), act

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c(self.act(self.b(self.act(self.a(x)))))


@pytest.mark.parametrize("act", [nn.ReLU(), nn.ReLU(inplace=True), nn.PReLU()])
@pytest.mark.parametrize("site", ["act", "act@2"])
def test_only_the_named_call_is_swapped(act: nn.Module, site: str) -> None:
    model = Twice(act).double()
    graph = gg.trace(model, torch.randn(2, 3, dtype=torch.float64))
    child = grown(graph, f"swap-activation({site}, to=tanh)")
    assert_exact(graph, child)
    blend_of(child).s.data.fill_(1.0)
    first, second = (torch.tanh, model.act) if site == "act" else (model.act, torch.tanh)
    x = torch.randn(5, 3, dtype=torch.float64)
    assert_equal(model.c(second(model.b(first(model.a(x))))), child.module(x), 1e-12, "at the end")
    if isinstance(act, nn.PReLU):
        assert len([p for p in child.module.parameters() if p is act.weight]) == 1


def test_in_place_activations_around_skips_still_train() -> None:
    """The blend reads its input twice: neither of its sides may overwrite it."""
    model = Forward(
        lambda m, x: m.c(m.act2(m.b(m.act(h := m.a(x))) + h)), a=nn.Linear(3, 4), act=nn.ReLU(inplace=True),
        b=nn.Linear(4, 4), act2=nn.SiLU(inplace=True), c=nn.Linear(4, 2),
    )  # fmt: skip
    graph = gg.trace(model.double(), torch.randn(2, 3, dtype=torch.float64))
    child = gg.apply(graph, ["swap-activation(act, to=silu)", "swap-activation(act2, to=relu)"])
    assert_exact(graph, child)
    assert assert_alive(graph, child) == {"act.s", "act2.s"}


REFUSED = [
    ("swap-activation(act, to=swish)", gg.MutationError, "to=swish: there are relu, relu6, leaky-relu"),
    ("swap-activation(ac, to=relu)", gg.MutationError, "there is no site `ac`; did you mean 'act'"),
    ("swap-activation(act, to=gelu)", gg.MutationError, "to=gelu: `act` is one already"),
    ("swap-activation(first, to=relu)", gg.Declined, "it is no activation that can be blended; known are relu"),
    ("swap-activation(:abs, to=relu)", gg.Declined, "it is no activation that can be blended"),
    ("swap-activation(:exp, to=relu)", gg.Declined, "it is no activation that can be blended"),
    ("swap-activation(slopes, to=relu)", gg.Declined, "a PReLU with a slope for each channel"),
    ("swap-activation(counted, to=relu)", gg.Declined, "it puts out no floating-point tensor"),
    ("swap-activation(x, to=relu)", gg.Declined, "it is no activation"),
]


@pytest.fixture(scope="module")
def mixed() -> Graph:
    def run(m: Any, x: Any) -> Any:
        h = m.slopes(m.act(m.first(x)).abs())
        return m.last(h.exp()) + m.counted(h.argmax(-1)).unsqueeze(-1)

    model = Forward(run, first=nn.Linear(3, 4), act=nn.GELU(), slopes=nn.PReLU(4), counted=nn.Identity(),
                    last=nn.Linear(4, 2))  # fmt: skip
    return gg.trace(model, torch.randn(2, 3))


@pytest.mark.parametrize(("text", "error", "words"), REFUSED)
def test_refusals(mixed: Graph, text: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error) as caught:
        gg.apply(mixed, text)
    assert words in str(caught.value)


def test_a_slope_for_each_of_two_channels_is_refused_too() -> None:
    graph = gg.trace(nn.Sequential(nn.Linear(3, 2), nn.PReLU(2), nn.Linear(2, 2)), torch.randn(2, 3))
    with pytest.raises(gg.Declined, match="a PReLU with a slope for each channel"):
        gg.apply(graph, "swap-activation(1, to=relu)")


def test_every_activation_is_listed_or_refused(mixed: Graph) -> None:
    mutations = mixed.mutations("swap-activation")
    assert [str(mutation) for mutation in mutations] == ["swap-activation(act, to=silu)"]
    assert [refusal.site for refusal in mutations.refusals] == [":abs", "slopes"]


def test_a_second_swap_declines_until_the_first_is_settled() -> None:
    graph = gg.apply(graph_of(nn.ReLU()), "swap-activation(act, to=gelu)")
    with pytest.raises(gg.Declined, match="a swap is under way here; finish it with settle-activation first"):
        gg.apply(graph, "swap-activation(act, to=tanh)")
    assert [str(refusal) for refusal in graph.mutations("swap-activation").refusals] == [
        "swap-activation at act: a swap is under way here; finish it with settle-activation first"
    ]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("to", ["gelu", "mish", "prelu", "softplus"])
def test_low_precision(dtype: torch.dtype, to: str) -> None:
    assert_narrow(lambda: between(nn.ReLU()), 100 * torch.randn(2, 3), f"swap-activation(act, to={to})", dtype)


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam])
def test_the_optimizer_trains_the_share(kind: Any) -> None:
    graph = graph_of(nn.PReLU())
    optimizer = kind(graph.module.parameters(), lr=0.1)
    gradients(graph.module, graph.inputs.sample()[0])
    optimizer.step()
    child = gg.apply(graph, "swap-activation(act, to=gelu)", optimizer=optimizer)
    assert {id(p) for p in optimizer.param_groups[0]["params"]} == {id(p) for p in child.module.parameters()}
    gradients(child.module, child.inputs.sample()[0])
    optimizer.step()
    assert float(blend_of(child).s.detach()) != 0.0


def test_with_copies_the_optimizer_follows_them() -> None:
    graph = graph_of(nn.PReLU())
    optimizer = torch.optim.Adam(graph.module.parameters(), lr=0.1)
    gradients(graph.module, graph.inputs.sample()[0])
    optimizer.step()
    state = optimizer.state[graph.module.get_parameter("act.weight")]["exp_avg"].clone()
    child = gg.apply(graph, "swap-activation(act, to=gelu)", optimizer=optimizer, share=False)
    mine = {id(p) for p in child.module.parameters()}
    assert mine == {id(p) for p in optimizer.param_groups[0]["params"]}
    assert not mine & {id(p) for p in graph.module.parameters()}
    assert torch.equal(optimizer.state[child.module.get_parameter("act.old.weight")]["exp_avg"], state)


@pytest.mark.parametrize("to", ["gelu", "prelu"])
def test_groups_grow_behind_it_as_before(to: str) -> None:
    graph = gg.trace(between(nn.ReLU(), dims=2).double(), torch.randn(2, 3, 5, 4, dtype=torch.float64))
    child = gg.apply(graph, f"swap-activation(act, to={to})")
    assert [str(m) for m in child.mutations("widen")] == [str(m) for m in graph.mutations("widen")] != []
    for part in child.module.modules():
        if isinstance(part, Blend):
            part.s.data.fill_(0.5)
    for mutation in [*child.mutations("widen"), *child.mutations("split")]:
        assert_preserved(child, gg.apply(child, mutation), batch_sizes=(None, 3))


@pytest.mark.parametrize("build", [lambda: between(nn.ReLU()), lambda: between(F.relu)])
def test_verify_sees_a_share_that_is_not_zero(build: Callable[[], nn.Module], monkeypatch: pytest.MonkeyPatch) -> None:
    graph = gg.trace(build(), torch.randn(2, 3))
    (mutation,) = graph.mutations("swap-activation")
    assert gg.verify(graph, gg.apply(graph, mutation)).preserved is True
    made = Blend.__init__

    def ajar(blend: Blend, old: nn.Module, new: nn.Module) -> None:
        made(blend, old, new)
        blend.s.data.fill_(1e-6)

    monkeypatch.setattr(Blend, "__init__", ajar)
    assert gg.verify(graph, gg.apply(graph, mutation)).preserved is False


def test_onnx(tmp_path: Path) -> None:
    acts = nn.Sequential(nn.ReLU(), nn.Tanh(), nn.LeakyReLU(0.3))
    graph = gg.trace(between(acts), torch.randn(2, 3))
    texts = [f"swap-activation(act.{i}, to={to})" for i, to in enumerate(("gelu", "hardswish", "prelu"))]
    child = gg.apply(graph, texts)
    for part in child.module.modules():
        if isinstance(part, Blend):
            part.s.data.fill_(0.4)
    assert_exports(child, tmp_path)


def test_saved_and_loaded(tmp_path: Path) -> None:
    graph = gg.trace("graphgrow:mobilenet")
    assert_reloads(gg.apply(graph, list(graph.mutations("swap-activation"))[:3]), tmp_path)


def test_the_sites_behind_a_swapped_function_keep_their_names() -> None:
    """A list of mutations that was drawn from one graph is applied one by one."""

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.c(torch.relu(self.b(torch.relu(self.a(x)))))
            return result

    graph = gg.trace(Twice(), torch.randn(2, 3))
    swaps = [str(mutation) for mutation in graph.mutations("swap-activation")]
    assert swaps == ["swap-activation(:relu, to=gelu)", "swap-activation(:relu@2, to=gelu)"]
    grown = gg.apply(graph, swaps)
    first, second = (grown.sites.find(name) for name in (":relu", ":relu@2"))
    assert first.op == second.op == "call_module"
    assert grown.sites.position(first) < grown.sites.position(second)
    assert grown.sites.find(str(first.target)) is first
