"""deepen: every kind on every layout, the blocks that people write, chains, and where it declines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import graphgrow as gg
from graphgrow.graph import Graph
from tests.passes.claims import (
    assert_alive,
    assert_exact,
    assert_exports,
    assert_narrow,
    assert_reloads,
    grown,
    stirred,
)
from tests.preserved import assert_preserved, assert_untouched, fingerprint
from tests.rewrite.small_models import Forward

CONVS: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
NORMS: dict[int, Any] = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


def maps(dims: int, norm: nn.Module | None = None, act: nn.Module | None = None) -> nn.Module:
    """stem, norm, act, head."""
    return stirred(
        Forward(lambda m, x: m.head(m.act(m.norm(m.stem(x)))), stem=CONVS[dims](3, 4, 3, padding=1),
                norm=norm or NORMS[dims](4), act=act or nn.ReLU(), head=CONVS[dims](4, 2, 1))
    )  # fmt: skip


def features(norm: Any = nn.LayerNorm, width: int = 4, act: nn.Module | None = None) -> nn.Module:
    """stem, norm, act, head."""
    return stirred(
        Forward(lambda m, x: m.head(m.act(m.norm(m.stem(x)))), stem=nn.Linear(3, width), norm=norm(width),
                act=act or nn.GELU(), head=nn.Linear(width, 2))
    )  # fmt: skip


class Attends(nn.Module):
    """One residual attention of torch; causal by a flag of the function, or with dropout, or masked."""

    def __init__(self, causal: bool = False, dropout: float = 0.0, width: int = 8) -> None:
        super().__init__()
        self.stem, self.norm, self.qkv = nn.Linear(3, width), nn.LayerNorm(width), nn.Linear(width, 3 * width)
        self.out, self.head, self.causal, self.dropout = nn.Linear(width, width), nn.Linear(width, 2), causal, dropout

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        q, k, v = (y.unflatten(-1, (2, -1)).transpose(1, 2) for y in self.qkv(self.norm(x)).chunk(3, -1))
        rate = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, None, rate, self.causal)
        result: torch.Tensor = self.head(x + self.out(y.transpose(1, 2).flatten(-2)))
        return result


@dataclass(frozen=True)
class Case:
    """A model, its input, and a mutation of it."""

    text: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    new: str  # the new parameters, by their last part
    tolerance: float = 0.0
    label: str = ""

    def __str__(self) -> str:
        return self.label or f"{self.text}-{'x'.join(map(str, self.shape))}"

    def graph(self) -> Graph:
        torch.manual_seed(0)
        return gg.trace(self.build().double(), torch.randn(self.shape, dtype=torch.float64))


CONV = "conv1.weight norm.weight norm.bias conv2.weight conv2.bias"
MLP = "norm.weight norm.bias linear1.weight linear1.bias linear2.weight linear2.bias"
ATTENTION = "norm.weight norm.bias query.weight query.bias key.weight value.weight value.bias output.weight output.bias"
SQUARE = "linear.weight linear.bias activation.weight"
SIZES = {1: (7,), 2: (5, 6), 3: (4, 3, 5)}
KINDS = [
    *(Case("deepen(act)", partial(maps, dims), (2, 3, *SIZES[dims]), CONV) for dims in SIZES),
    Case("deepen(act, kind=conv, hidden=6)", lambda: maps(2, nn.GroupNorm(2, 4), nn.SiLU()), (2, 3, 5, 6),
         f"{CONV} conv1.bias", label="hidden, group norm"),
    Case("deepen(stem, kind=conv)", lambda: maps(2, nn.Identity(), nn.Tanh()), (1, 3, 1, 1),
         "conv1.weight conv1.bias conv2.weight conv2.bias", label="one position"),
    Case("deepen(act)", features, (3, 5, 3), MLP, label="mlp on tokens"),
    Case("deepen(norm, kind=mlp, hidden=3)", partial(features, partial(nn.RMSNorm, eps=1e-5)), (2, 2, 5, 3),
         MLP.replace("norm.bias ", ""), label="mlp on a grid, RMS norm"),
    Case("deepen(act)", features, (3, 3), MLP, label="mlp on rows"),
    Case("deepen(act)", partial(features, nn.BatchNorm1d), (3, 3), MLP, label="mlp on rows, batch norm"),
    Case("deepen(stem, kind=attention)", Attends, (2, 5, 3), ATTENTION, label="attention"),
    Case("deepen(:add, kind=attention, heads=4)", partial(Attends, True), (2, 5, 3), ATTENTION, label="causal"),
    Case("deepen(norm, kind=attention, heads=2)", partial(Attends, dropout=1e-30), (2, 5, 3), ATTENTION,
         label="beside attention with dropout"),
    Case("deepen(act, kind=identity)", features, (3, 5, 3), SQUARE),
    Case("deepen(stem, kind=identity)", features, (3, 3), SQUARE),
    Case("deepen(act, kind=layer)", partial(features, act=nn.ReLU()), (3, 5, 3), "linear.weight linear.bias"),
    Case("deepen(act, kind=layer)", partial(features, act=nn.Hardtanh(-0.3, 0.4)), (3, 3), "linear.weight linear.bias",
         label="one more layer with limits"),
    *(Case("deepen(act, kind=layer)", partial(maps, dims, act=nn.ReLU6()), (2, 3, *SIZES[dims]),
           "linear.weight linear.bias", 1e-14, f"one more convolution of {dims} axes") for dims in SIZES),
    *(Case("deepen(act, kind=identity)", partial(maps, dims), (2, 3, *SIZES[dims]), SQUARE, 1e-14) for dims in SIZES),
]  # fmt: skip
BY_LABEL = {str(case): case.graph for case in KINDS}


@pytest.mark.parametrize("case", KINDS, ids=str)
def test_a_fresh_block_of_every_kind(case: Case) -> None:
    graph = case.graph()
    child = grown(graph, case.text, seed=7)
    batches = (2, 3) if case.label.endswith("rows, batch norm") else (1, 2, 3)  # the parent's own limit in train mode
    assert_exact(graph, child, batches=batches, tolerance=case.tolerance)
    found = assert_alive(graph, child)
    assert {name.partition("deepen.")[2] for name in found} == set(case.new.split())
    assert set(child.steps[-1].touched) >= found
    assert {id(p) for p in child.new_parameters()} == {id(child.module.get_parameter(name)) for name in found}


@pytest.mark.parametrize(
    ("build", "site", "causal"),
    [
        (partial(Attends, True), "stem", True),
        (partial(Attends, True, 0.1), "stem", True),
        (partial(Attends, False, 0.1), "stem", False),
        (Attends, "stem", False),
        (features, "act", True),  # nothing shows that a token may know of later ones
    ],
)
def test_a_new_attention_is_causal_where_the_others_are(
    build: Callable[[], nn.Module], site: str, causal: bool
) -> None:
    child = gg.apply(gg.trace(build(), torch.randn(2, 5, 3)), f"deepen({site}, kind=attention)")
    assert child.module.get_submodule(f"{site}_deepen.attention").is_causal is causal  # type: ignore[comparison-overlap]


@pytest.mark.parametrize("case", [c for c in KINDS if not c.tolerance], ids=str)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_types(case: Case, dtype: torch.dtype) -> None:
    assert_narrow(case.build, torch.randn(case.shape), case.text, dtype)


def test_seeds() -> None:
    graph = KINDS[0].graph()
    first, again, other = (gg.apply(graph, "deepen(act)", seed=seed).module for seed in (1, 1, 2))
    weights = [module.get_parameter("act_deepen.conv1.weight") for module in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_norms_and_activations_are_those_around() -> None:
    model = maps(2, nn.GroupNorm(2, 4, eps=1e-3), nn.LeakyReLU(0.3, inplace=True))
    child = gg.apply(gg.trace(model, torch.randn(2, 3, 5, 6)), "deepen(act)")
    norm, act = (child.module.get_submodule(f"act_deepen.{name}") for name in ("norm", "activation"))
    assert (norm.num_groups, norm.eps) == (2, 1e-3)  # type: ignore[comparison-overlap]
    assert (act.negative_slope, act.inplace) == (0.3, False)  # type: ignore[comparison-overlap]
    plain = Forward(lambda m, x: m.b(F.relu(m.a(x))), a=nn.Conv2d(3, 4, 1), b=nn.Conv2d(4, 2, 1))
    child = gg.apply(gg.trace(plain, torch.randn(2, 3, 5, 6)), "deepen(a)")
    assert type(child.module.get_submodule("a_deepen.norm")) is nn.Identity
    assert type(child.module.get_submodule("a_deepen.activation")) is nn.ReLU


def test_a_single_sample_goes_on_training() -> None:
    """Squeeze and excitation has maps of one position, where a batch norm refuses a batch of one."""
    gate = Forward(lambda m, x: x * m.up(m.act(m.down(x.mean((2, 3), keepdim=True)))).sigmoid(),
                   down=nn.Conv2d(4, 2, 1), act=nn.ReLU(), up=nn.Conv2d(2, 4, 1))  # fmt: skip
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), gate, nn.Conv2d(4, 2, 1)).double()
    graph = gg.trace(model, torch.randn(1, 3, 6, 6, dtype=torch.float64))
    for site in ("2.down", "2.act", "2.up", "1"):
        child = grown(graph, f"deepen({site}, kind=conv)")
        assert_exact(graph, child)
        assert_alive(graph, child)


# -- in place, several readers, several calls, several inputs ------------------------------------------------


def inplace() -> nn.Module:
    """torchvision's habit: one ReLU in place, called behind each norm, on the very tensors that sites put out."""

    def run(m: Any, x: Any) -> Any:
        x = m.relu(m.bn1(m.conv1(x)))
        y = m.relu(m.bn2(m.conv2(x)))
        y = m.bn3(m.conv3(y)).add_(x)
        return m.head(m.relu(y) + m.relu(m.conv2(x)))

    return stirred(Forward(run, conv1=nn.Conv2d(3, 4, 3), conv2=nn.Conv2d(4, 4, 3, padding=1),
                           conv3=nn.Conv2d(4, 4, 3, padding=1), bn1=nn.BatchNorm2d(4), bn2=nn.BatchNorm2d(4),
                           bn3=nn.BatchNorm2d(4), relu=nn.ReLU(inplace=True), head=nn.Conv2d(4, 2, 1)))  # fmt: skip


SITES = ("conv1", "bn1", "relu", "conv2", "bn2", "relu@2", "bn3", ":add_", "relu@3", "conv2@2", "relu@4", ":add")


@pytest.mark.parametrize("site", SITES)
def test_operators_in_place_around_the_site(site: str) -> None:
    """Outputs, statistics and gradients are the parent's; nothing is overwritten that the backward pass needs."""
    graph = gg.trace(inplace().double(), torch.randn(3, 3, 6, 6, dtype=torch.float64))
    for kind in ("conv", "identity"):
        if kind == "identity" and site in ("bn1", "bn2", ":add_", "conv2@2"):
            with pytest.raises(gg.Declined, match=r"PReLU would never learn in front of a ReLU; name `relu(@\d)?`"):
                gg.apply(graph, f"deepen({site}, kind=identity)")
            continue
        child = grown(graph, f"deepen({site}, kind={kind})")
        assert_exact(graph, child, scales=(1.0,), tolerance=1e-14)
        assert_alive(graph, child)


def functional(m: Any, x: Any) -> Any:
    y = F.relu(m.a(x))
    return m.c(F.relu(m.b(y)) + y + torch.tanh(m.b(F.relu(y))))


@pytest.mark.parametrize("site", ["a", ":relu", "b", ":relu@2", ":relu@3", "b@2", ":tanh", ":add", ":add@2"])
def test_functions_several_readers_and_second_calls(site: str) -> None:
    model = Forward(functional, a=nn.Linear(3, 4), b=nn.Linear(4, 4), c=nn.Linear(4, 2)).double()
    nn.init.constant_(model.b.bias, 0.5)  # type: ignore[arg-type]  # so that no ReLU puts out zeros alone
    graph = gg.trace(model, torch.randn(5, 3, dtype=torch.float64))
    child = grown(graph, f"deepen({site}, kind=mlp)")
    assert_exact(graph, child)
    assert_alive(graph, child)
    # whatever read the site reads the block: opened, it moves the output as a hook on the site would
    with torch.no_grad():
        child.module.get_parameter(next(n for n, _ in child.module.named_parameters() if "linear2.bias" in n)).add_(0.5)
    x = torch.randn(5, 3, dtype=torch.float64)
    values: dict[str, torch.Tensor] = {}
    for node in graph.module.graph.nodes:
        if node.op == "placeholder":
            values[node.name] = x
        elif node.op == "output":
            expected = values[node.args[0].name]
        else:
            args = [values[a.name] for a in node.args]
            called = graph.module.get_submodule(str(node.target)) if node.op == "call_module" else node.target
            values[node.name] = called(*args) + (0.5 if graph.sites.name(node) == site else 0.0)
    torch.testing.assert_close(child.module(x), expected, rtol=1e-12, atol=1e-12)


# -- what is listed ------------------------------------------------------------------------------------------


def listed(name: str) -> list[str]:
    return [str(mutation) for mutation in gg.trace(name).mutations("deepen")]


def test_what_is_listed() -> None:
    vit_sites = listed("graphgrow:vit")
    assert {"deepen(blocks.0, kind=copy)", "deepen(blocks.0.mlp, kind=copy)", "deepen(blocks.0:add, kind=mlp)"} <= set(
        vit_sites
    )
    assert {"deepen(stages.0.0, kind=copy)", "deepen(relu, kind=conv)"} <= set(listed("graphgrow:resnet"))
    assert not [site for site in listed("graphgrow:resnet") if "stages.1.0, kind=copy" in site], "its width changes"
    assert len(vit_sites) == len(set(vit_sites))


def test_what_is_not_listed_says_why() -> None:
    heads = Forward(
        lambda m, x: m.b(m.a(x).unflatten(-1, (2, 2)).relu().flatten(-2)), a=nn.Linear(3, 4), b=nn.Linear(4, 2)
    )
    mutations = gg.trace(heads, torch.randn(2, 5, 3)).mutations("deepen")
    assert [str(m) for m in mutations] == []
    assert [str(refusal) for refusal in mutations.refusals] == [
        "deepen at :relu: no weight writes or reads one of its axes as channels"
    ]


# -- errors --------------------------------------------------------------------------------------------------

BAD: dict[str, tuple[str | Callable[[], Graph], str, type[gg.GraphGrowError], str]] = {
    "kind": ("mlp on rows", "deepen(act, kind=dense)", gg.MutationError,
             r"kind=dense: there are auto, conv, mlp, attention, copy, identity, layer"),
    "hidden": ("mlp on rows", "deepen(act, hidden=-1)", gg.MutationError, r"hidden=-1, heads=0: a number of units"),
    "hidden of a copy": ("mlp on rows", "deepen(act, kind=copy, hidden=3)", gg.MutationError,
                         r"`hidden` is for conv and mlp, `heads` for kind=attention"),
    "heads of a conv": ("one position", "deepen(act, heads=2)", gg.MutationError, r"`heads` for kind=attention"),
    "heads that do not divide": ("attention", "deepen(stem, kind=attention, heads=3)", gg.MutationError,
                                 r"heads=3 does not divide the width 8 of `stem`"),
    "mlp on maps": ("one position", "deepen(act, kind=mlp)", gg.Declined,
                    r"kind=mlp does not fit maps of shape \(1, 4, 1, 1\)"),
    "conv on features": ("mlp on tokens", "deepen(act, kind=conv)", gg.Declined, r"kind=conv does not fit features"),
    "attention on rows": ("mlp on rows", "deepen(act, kind=attention)", gg.Declined,
                          r"attention wants tokens \(N, L, C\), not a value of shape \(3, 4\)"),
    "copy of an operator": ("mlp on tokens", "deepen(act, kind=copy)", gg.Declined,
                            r"nothing that flows into `act`, through weights of its own"),
    "layer behind no activation": ("mlp on tokens", "deepen(stem, kind=layer)", gg.Declined,
                                   r"no f with f\(f\(x\)\) = f\(x\) stands at `stem`, as ReLU is"),
    "copy of no module": (partial(gg.trace, "graphgrow:resnet"), "deepen(stages.0.0:add, kind=copy)", gg.Declined,
                          r"no operator stands in `stages\.0\.0:add`; kind=copy wants the path of a module"),
    "copy that halves": (partial(gg.trace, "graphgrow:resnet"), "deepen(stages.1.0, kind=copy)", gg.Declined,
                         r"nothing that flows into `stages\.1\.0`"),
    "no site": ("mlp on rows", "deepen(stam)", gg.MutationError, r"there is no site `stam`; did you mean 'stem'"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_errors_name_the_cause_and_leave_the_parent(name: str) -> None:
    build, text, kind, message = BAD[name]
    graph = (BY_LABEL[build] if isinstance(build, str) else build)()
    before, words = fingerprint(graph.module), graph.text()
    with pytest.raises(kind, match=message) as caught:
        gg.apply(graph, text)
    assert str(caught.value).startswith(f"{text}: ")
    assert_untouched(graph.module, before)
    assert graph.text() == words
    assert len(graph.ledger) == 0


# -- chains --------------------------------------------------------------------------------------------------

CHAINS: dict[str, list[str]] = {
    "graphgrow:resnet": [
        "deepen(stages.0.0, kind=copy)",
        "widen(stem, extra=3)",
        "widen(stages.0.0_deepen.conv1, extra=2)",
        "split(stages.0.0_deepen.conv1, units=[0, 1])",
        "deepen(stages.0.0, kind=copy)",
        "deepen(stages.0.0_deepen, kind=copy)",
        "deepen(stages.1.0.relu1, kind=conv)",
        "split(stages.1.0.relu1_deepen.conv1, units=[2])",
        "deepen(stages.1.0.relu1, kind=identity)",
        "swap-activation(stages.0.0.relu2, to=gelu)",
        "deepen(stages.0.0, kind=copy)",
        "split(stem, units=[1])",
    ],
    "graphgrow:gpt": [
        "deepen(blocks.0, kind=copy)",
        "widen(embed, extra=4)",
        "deepen(blocks.0_deepen.mlp, kind=copy)",
        "deepen(blocks.1, kind=attention)",
        "widen(blocks.1_deepen.query:heads, extra=1)",
        "deepen(blocks.1:add, kind=mlp, hidden=5)",
        "widen(blocks.1.add_deepen.linear1, extra=2)",
        "split(blocks.1.add_deepen.linear1)",
    ],
}


@pytest.mark.parametrize("base", CHAINS)
def test_chains_with_growth_in_width(base: str) -> None:
    """Each step alone, the whole with gg.verify, and the replay to the bit."""
    graph = gg.trace(base)
    current = graph
    for number, text in enumerate(CHAINS[base]):
        child = grown(current, text, seed=number)
        if not child.steps[-1].rounded:
            assert_preserved(current, child)
        current = child
    verdict = gg.verify(graph, current)
    assert verdict.preserved is True, verdict
    assert verdict.modes == ("eval", "train")


STORED = {
    "graphgrow:resnet": ["deepen(stages.0.0, kind=copy)", "deepen(relu, kind=identity)", "deepen(stages.1.0.relu1)"],
    "graphgrow:vit": [
        "deepen(blocks.0, kind=copy)",
        "deepen(blocks.1, kind=attention)",
        "deepen(blocks.2.mlp, kind=copy)",
    ],
}


@pytest.mark.parametrize("base", STORED)
def test_saved_exported_and_loaded(base: str, tmp_path: Path) -> None:
    child = gg.apply(gg.trace(base), STORED[base], seed=3)
    with torch.no_grad():  # open what is closed, so that it is seen
        for parameter in child.new_parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    assert_exports(child, tmp_path)
    assert_reloads(child, tmp_path / "saved")


def test_modes_of_parent_and_child_are_their_own() -> None:
    graph = KINDS[0].graph()
    graph.module.eval()
    child = gg.apply(graph, "deepen(act)")
    child.module.train()
    assert not any(part.training for part in graph.module.modules())
    graph.module.train()
    child.module.eval()
    assert not any(part.training for part in child.module.modules())


def test_cost() -> None:
    """A convolution of 3 x 3 over 4 channels twice, on 5 x 6 positions; its norm and one bias."""
    graph = KINDS[1].graph()
    cost = graph.cost("deepen(act)")
    assert (cost.parameters, cost.flops) == (2 * 4 * 4 * 9 + 8 + 4, 2 * 2 * 4 * 4 * 9 * 30)
