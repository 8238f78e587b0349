"""What the planner offers on small models, by name, and that each of it is exact."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.graph import Graph
from graphgrow.planning import plan as planner
from graphgrow.planning import request
from tests.preserved import assert_preserved, assert_untouched, fingerprint
from tests.rewrite.small_models import EXPECTED, Expected, Forward


def _graph(expected: Expected) -> Graph:
    torch.manual_seed(2)
    model = expected.build().double()
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.is_floating_point():
            torch.nn.init.uniform_(tensor, 0.2, 1.5) if "var" in name else torch.nn.init.normal_(tensor)
    return gg.trace(model, torch.randn(expected.shape, dtype=torch.float64))


@pytest.mark.parametrize("expected", EXPECTED, ids=str)
def test_what_is_offered_is_what_is_expected(expected: Expected) -> None:
    graph = _graph(expected)
    for name, wanted in (("widen", expected.widen), ("split", expected.split)):
        offered = {mutation.group for mutation in graph.mutations(name)}  # type: ignore[attr-defined]
        assert offered == set(wanted.split()), f"{name}: {graph.explain()}"


@pytest.mark.parametrize("expected", EXPECTED, ids=str)
def test_what_is_offered_is_exact_and_the_rest_declines(expected: Expected) -> None:
    graph = _graph(expected)
    before = fingerprint(graph.module)
    for name in ("widen", "split"):
        offered = {mutation.group: mutation for mutation in graph.mutations(name)}  # type: ignore[attr-defined]
        for group in graph.groups:
            text = f"widen({group.name}, extra=2)" if name == "widen" else f"split({group.name})"
            if group.name in offered:
                assert_preserved(graph, gg.apply(graph, text, seed=1))
                continue
            with pytest.raises(gg.Declined, match=r"at `") as caught:
                gg.apply(graph, text)
            assert str(caught.value).startswith(text)
    assert_untouched(graph.module, before)


def _named(label: str) -> Graph:
    return _graph(next(expected for expected in EXPECTED if expected.label == label))


@pytest.mark.parametrize(
    ("label", "text", "reason"),
    [
        ("softmax", "widen(first, extra=1)", r"the axis is frozen: a softmax over it \(at `mid.0`\)"),
        ("log", "widen(first, extra=1)", r"may not be finite on new units \(at `log`\)"),
        ("largest", "widen(first, extra=1)", r"the extreme over the axis, whose new units are free \(at `amax`\)"),
        ("group-norm", "widen(first:group_width, extra=1)", r"append whole groups instead \(at `mid.0`\)"),
        ("layer-norm", "split(first, units=[0])", r"only splits of all units alike \(at `mid.0`\)"),
        ("layer-norm-behind-relu", "widen(first, extra=1)", r"new units at mean, but they are free \(at `mid.1`\)"),
        ("norm-weight-used-twice", "widen(first, extra=1)", r"must be rescaled is used here too \(at `sum_1`\)"),
        ("sum-behind-sigmoid", "split(first)", r"summed over with copy units \(at `sum_1`\)"),
    ],
)
def test_reasons_name_the_node_and_the_cause(label: str, text: str, reason: str) -> None:
    with pytest.raises(gg.Declined, match=reason):
        gg.apply(_named(label), text)


@pytest.mark.parametrize(("label", "text"), [("dropout", "split(first)"), ("dropout", "widen(first, extra=1)")])
def test_dropout_between_copies_and_readers_is_exact_in_eval_mode_alone(label: str, text: str) -> None:
    """Separate masks for the copies change the variance of their sum."""
    step = gg.apply(_named(label), text).steps[-1]
    assert step.exact_in == ({"eval"} if text.startswith("split") else {"eval", "train"})


def test_layer_norm_over_copies_in_any_number() -> None:
    graph = _named("layer-norm")
    for copies in (2, 3, 4):
        assert_preserved(graph, gg.apply(graph, f"split(first, copies={copies})"))


def test_behind_a_filled_norm_reading_weights_are_fresh() -> None:
    """With both sides zero, every new gradient would be exactly 0."""
    grown = gg.apply(_named("residual-norms"), "widen(first, extra=2)")
    parameters = dict(grown.module.named_parameters())
    assert bool((parameters["a.weight"][:, 4:] != 0).all())
    assert bool((parameters["last.weight"][:, 4:] != 0).all())
    assert grown.steps[-1].rounded
    loss = grown.module(torch.randn(2, 5, 3, dtype=torch.float64)).square().sum()
    loss.backward()
    gradients = {name: p.grad for name, p in parameters.items() if p.grad is not None}
    assert all(bool((gradients[name][4:] != 0).any()) for name in ("first.weight", "first.bias", "b.weight"))


def test_appended_units_get_gradient_at_once() -> None:
    """Reading weights start at zero and learn first; the incoming ones follow a step later."""
    grown = gg.apply(_named("relu"), "widen(first, extra=8)", seed=1)
    parameters = dict(grown.module.named_parameters())
    assert not parameters["last.weight"][:, 4:].any()
    grown.module(torch.randn(20, 3, dtype=torch.float64)).square().sum().backward()
    assert bool((parameters["last.weight"].grad[:, 4:] != 0).any())  # type: ignore[index]


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("deep", [False, True])
def test_zero_is_asked_of_whichever_factor_can_be_zero(turned: bool, deep: bool) -> None:
    """A gate is never zero, what it gates may be: the search comes back to a product where its first choice failed."""

    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        gate, held = torch.sigmoid(m.first(x)), torch.tanh(m.second(x))
        if deep:  # the first choice fails far from the product that offers it
            gate, held = (gate * m.gain).clone(), torch.tanh(m.third(x) * 2.0) * torch.sigmoid(held)
        return m.last(m.norm(held * gate if turned else gate * held))

    torch.manual_seed(0)
    maps = {name: nn.Linear(3, 4) for name in ("first", "second", "third")}
    model = Forward(forward, **maps, norm=nn.RMSNorm(4, eps=1e-2), last=nn.Linear(4, 2))
    model.gain = nn.Parameter(torch.ones(()))
    graph = gg.trace(model.double(), torch.randn(5, 3, dtype=torch.float64))
    child = gg.apply(graph, "widen(first, extra=3)")
    assert_preserved(graph, child)
    parameters = dict(child.module.named_parameters())
    assert not parameters["third.weight" if deep else "second.weight"][4:].any()
    assert bool(parameters["first.weight"][4:].any())
    child.module(torch.randn(5, 3, dtype=torch.float64)).square().sum().backward()
    gradient = parameters["third.weight" if deep else "second.weight"].grad
    assert gradient is not None
    assert bool(gradient[4:].any())


def test_a_table_that_never_learns_is_the_last_to_be_zero() -> None:
    """Rotated halves: both q and k are multiplied by the same buffers, and zero ones would be zero for ever."""

    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        def turned(x: torch.Tensor) -> torch.Tensor:
            first, second = x.chunk(2, -1)
            return x * m.cos + torch.cat((-second, first), -1) * m.sin

        q, k = turned(m.q(x)), turned(m.k(x))
        result: torch.Tensor = (q @ k.transpose(1, 2)).softmax(-1) @ m.v(x)
        return result

    torch.manual_seed(0)
    model = Forward(forward, q=nn.Linear(3, 6), k=nn.Linear(3, 6), v=nn.Linear(3, 2))
    for name in ("cos", "sin"):
        model.register_buffer(name, torch.randn(4, 6))
    graph = gg.trace(model.double(), torch.randn(2, 4, 3, dtype=torch.float64))
    child = gg.apply(graph, "widen(q, extra=2)")
    assert_preserved(graph, child)
    rows = {
        name: (p[3:5].any(), p[8:].any()) for name, p in child.module.named_parameters() if name in "q.weight k.weight"
    }
    assert [bool(any(new)) for new in rows.values()] in ([True, False], [False, True])


def _scaled_stream(run: Callable[[Any, Any], Any]) -> Graph:
    """A pre-norm residual block whose branch has a scale for each unit, as in CaiT, BEiT and DINOv2."""

    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        x = m.first(x)
        return m.last(m.norm(x + run(m, torch.tanh(m.up(x)))))

    torch.manual_seed(0)
    model = Forward(
        forward, first=nn.Linear(3, 6), up=nn.Linear(6, 5), down=nn.Linear(5, 6), norm=nn.LayerNorm(6),
        last=nn.Linear(6, 2), dropout=nn.Dropout(0.5),
    )  # fmt: skip
    model.scale, model.other = nn.Parameter(torch.randn(6)), nn.Parameter(torch.randn(1, 6))
    return gg.trace(model.double(), torch.randn(5, 3, dtype=torch.float64))


SCALED: list[Callable[[Any, Any], Any]] = [
    lambda m, x: m.scale * m.down(x),
    lambda m, x: -(m.down(x) * m.scale) / 3,
    lambda m, x: m.down(x) * m.other,
    lambda m, x: m.scale * m.down(x) + m.other * m.down.bias,
    lambda m, x: m.dropout(m.down(x)) * m.scale,
]


@pytest.mark.parametrize("run", SCALED[:3] + SCALED[4:])
def test_means_pass_a_scale_with_one_number_for_each_unit(run: Callable[[Any, Any], Any]) -> None:
    """By hand: new rows sum_i s_i w_i / (n c) behind a new scale c, the root mean square of the old ones."""
    graph = _scaled_stream(run)
    child = gg.apply(graph, "widen(first, extra=2)")
    assert_preserved(graph, child)
    assert ("train" in child.steps[-1].exact_in) is (run is not SCALED[4])
    old, new = (dict(g.module.named_parameters()) for g in (graph, child))
    name = "other" if run is SCALED[2] else "scale"
    numbers, grown = old[name].flatten(), new[name].flatten()
    torch.testing.assert_close(grown[6:], numbers.square().mean().sqrt().expand(2))
    rows = (numbers[:, None] * old["down.weight"]).mean(0) / grown[6]
    torch.testing.assert_close(new["down.weight"][6:], rows.expand(2, -1))


@pytest.mark.parametrize(
    "run",
    [
        SCALED[3],  # one bias, weighted by two scales
        lambda m, x: (1 + m.scale) * m.down(x),
        lambda m, x: m.scale * m.other * m.down(x),
        lambda m, x: m.scale * torch.relu(m.down(x)),
        lambda m, x: m.scale * (m.down(x) + 1),
        lambda m, x: m.scale * m.down(x) + m.scale,
    ],
)
def test_other_products_have_no_such_mean(run: Callable[[Any, Any], Any]) -> None:
    with pytest.raises(gg.Declined, match="needs new units at mean"):
        gg.apply(_scaled_stream(run), "widen(first, extra=2)")


def _part_scaled(m: Any, x: torch.Tensor) -> Any:
    kept, scaled = m.packed(x).chunk(2, -1)
    return m.last(m.norm(scaled * m.scale) + kept)


def _heads_scaled(m: Any, x: torch.Tensor) -> Any:
    return m.wide(m.norm(m.packed(x).unflatten(-1, (2, 4)) * m.scale).flatten(-2))


@pytest.mark.parametrize(("run", "parts"), [(_part_scaled, [1]), (_heads_scaled, [0, 1])])
def test_weighted_means_along_a_packed_axis_are_those_of_each_part(
    run: Callable[[Any, Any], Any], parts: list[int]
) -> None:
    """By hand, for each part: row sum_i s_i w_i / (n c) behind the new scale c."""
    torch.manual_seed(0)
    model = Forward(run, packed=nn.Linear(3, 8), norm=nn.LayerNorm(4), last=nn.Linear(4, 2), wide=nn.Linear(8, 2))
    model.scale = nn.Parameter(torch.randn(4))
    graph = gg.trace(model.double(), torch.randn(5, 3, dtype=torch.float64))
    child = gg.apply(graph, f"widen(packed:{len(parts) - 1}, extra=3)")
    assert_preserved(graph, child)
    old, new = (dict(g.module.named_parameters()) for g in (graph, child))
    scale, number, rows = old["scale"].detach(), new["scale"][4].item(), new["packed.weight"].unflatten(0, (2, -1))
    assert number == pytest.approx(scale.square().mean().sqrt().item())
    for part in parts:
        mean = (scale[:, None] * old["packed.weight"].unflatten(0, (2, 4))[part]).mean(0) / number
        torch.testing.assert_close(rows[part][4:], mean.expand(len(rows[part]) - 4, -1))
    back = gg.clean(child)
    assert_preserved(graph, back)
    assert {n: p.shape for n, p in back.module.named_parameters()} == {n: p.shape for n, p in old.items()}


def test_units_behind_a_scale_that_has_moved_stay() -> None:
    """A single new unit is recognised only while its rows are the mean that its own number weights."""
    graph = _scaled_stream(lambda m, x: m.scale * m.down(x))
    child = gg.apply(graph, "widen(first, extra=2)")
    assert gg.clean(child).parameter_count == graph.parameter_count
    with torch.no_grad():
        child.module.get_parameter("scale")[6:] *= 1.5
    assert gg.clean(child).parameter_count == child.parameter_count


@pytest.mark.parametrize("layer", [nn.RMSNorm(12, eps=1e-2), nn.RMSNorm(12, eps=1e-2, elementwise_affine=False)])
def test_an_rms_norm_over_a_part_of_its_axis_is_rescaled_by_all_that_it_sees(layer: nn.Module) -> None:
    """12 entries become 15, of which 3 are zero: scale sqrt(12 / 15), eps * 12 / 15; and back."""

    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        return m.last(m.norm(torch.cat([m.first(x), m.second(x)], -1)))

    torch.manual_seed(0)
    model = Forward(
        forward, first=nn.Linear(3, 5), second=nn.Linear(3, 7), norm=copy.deepcopy(layer), last=nn.Linear(12, 2)
    )
    graph = gg.trace(model.double(), torch.randn(5, 3, dtype=torch.float64))
    child = gg.apply(graph, "widen(first, extra=3)")
    assert_preserved(graph, child)
    assert child.module.get_submodule("norm").eps == pytest.approx(1e-2 * 12 / 15)
    if layer.elementwise_affine:
        back = gg.apply(child, "drop-units(first, units=[5, 6, 7])")
        assert_preserved(child, back)
        assert back.module.get_submodule("norm").eps == pytest.approx(1e-2)


def _deep_stream(depth: int) -> nn.Module:
    """Pre-norm residual blocks: each norm asks for what all writers before it put on the stream."""

    def run(m: Forward, x: torch.Tensor) -> torch.Tensor:
        x = m.first(x)
        for block in m.blocks:
            x = x + block(x)
        return m.last(x)

    blocks = nn.ModuleList(nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 4)) for _ in range(depth))
    return Forward(run, first=nn.Linear(3, 4), blocks=blocks, last=nn.Linear(4, 2))


def _noting(call: Callable[..., Any], calls: list[None]) -> Callable[..., Any]:
    def noted(*args: Any) -> Any:
        calls.append(None)
        return call(*args)

    return noted


def test_planning_over_many_norms_takes_work_in_proportion(monkeypatch: pytest.MonkeyPatch) -> None:
    """One request for each norm; if each walked or evaluated the whole net again, 8 times the depth were 64 times."""
    work = {}
    for depth in (5, 40):
        graph = gg.trace(_deep_stream(depth), torch.randn(2, 3))
        assert len(graph.group("first").members) == 1 + 2 * depth
        calls: list[None] = []
        with monkeypatch.context() as patch:
            for module, name in ((planner, "evaluate"), (request, "cells_of")):
                patch.setattr(module, name, _noting(getattr(module, name), calls))
            assert len(graph.mutations("widen")) == 1
        work[depth] = len(calls)
    assert work[40] < 10 * work[5]


def test_sizes_computed_as_a_whole_are_restated_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """`x.shape[:-1] + (4, 2)` as one node, which a capture takes apart."""
    monkeypatch.setattr("graphgrow.capture.stand_ins.proxies._are_sizes", lambda *_: False)

    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        h, cut = m.first(x), (4, 2)
        return m.last(h.reshape(h.shape[:-1] + cut).flatten(-2))

    graph = gg.trace(Forward(forward, first=nn.Linear(3, 8), last=nn.Linear(8, 2)).double(), torch.randn(2, 3).double())
    grown = [gg.apply(graph, text) for text in ("widen(first:0, extra=2)", "widen(first:1, extra=1)", "split(first:1)")]
    x = torch.randn(5, 3, dtype=torch.float64)
    for child in grown:
        torch.testing.assert_close(child.module(x), graph.module(x), rtol=1e-12, atol=1e-12)


class TiedStream(nn.Module):
    """A residual stream over RMS norms, whose table is also the head."""

    def __init__(self, eps: float | None) -> None:
        super().__init__()
        self.table = nn.Embedding(7, 4)
        self.norm1, self.norm2 = (nn.RMSNorm(4, eps=eps) for _ in range(2))
        self.up, self.down = nn.Linear(4, 6), nn.Linear(6, 4)
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.table.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        stream = self.table(tokens)
        stream = stream + self.down(torch.relu(self.up(self.norm1(stream))))
        result: torch.Tensor = self.head(self.norm2(stream))
        return result


@pytest.mark.parametrize("eps", [1e-3, None])
def test_a_tied_head_behind_an_rms_norm_widens_and_learns(eps: float | None) -> None:
    """New columns of the table are zero on both sides of the head's product, and learn through the fresh readers."""
    torch.manual_seed(0)
    tokens = torch.randint(7, (3, 5))
    graph = gg.trace(TiedStream(eps).double(), tokens)
    grown = gg.apply(graph, "widen(norm1, extra=2)")
    assert_preserved(graph, grown)
    optimizer = torch.optim.SGD(grown.module.parameters(), lr=1e-2)
    grown.module(tokens).square().mean().backward()
    table = grown.module.get_parameter("table.weight")
    assert table.grad is not None
    assert bool((table.grad[:, 4:] != 0).any())
    optimizer.step()
    optimizer.zero_grad()
    grown.module(tokens).square().mean().backward()
    for name, parameter in grown.module.named_parameters():
        assert parameter.grad is not None
        assert bool((parameter.grad != 0).any()), name


def test_a_size_read_off_another_axis_of_equal_size_becomes_a_number() -> None:
    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        y = m.first(x)
        return m.last(torch.nn.functional.layer_norm(m.middle(y), (y.shape[-1],), m.gain))

    model = Forward(
        forward, first=nn.Linear(3, 4), middle=nn.Linear(4, 4), last=nn.Linear(4, 2), gain=nn.Parameter(torch.ones(4))
    )  # fmt: skip
    graph = gg.trace(model.double(), torch.randn(5, 3, dtype=torch.float64))
    for mutation in ("widen(first, extra=2)", "widen(middle, extra=3)"):
        assert_preserved(graph, gg.apply(graph, mutation))


def test_the_other_side_of_a_product_is_tried_where_the_first_would_be_dead() -> None:
    """A memory of outer products with a bonus for what is new (RWKV): with keys and bonus at zero, neither learns."""

    def run(m: Any, x: torch.Tensor) -> Any:
        memory = m.key(x).unsqueeze(-1) @ m.value(x).unsqueeze(-2)
        asked = m.asked(x).unsqueeze(-2)
        return (asked @ (m.bonus.unsqueeze(-1) * memory) + asked @ memory).squeeze(-2)

    layers = {name: nn.Linear(3, 4) for name in ("key", "asked")}
    model = Forward(run, **layers, value=nn.Linear(3, 2), bonus=torch.randn(4)).double()
    graph = gg.trace(model, torch.randn(5, 3, dtype=torch.float64))
    child = gg.apply(graph, "widen(key, extra=2)")
    assert_preserved(graph, child, batch_sizes=(None, 3))
    tensors = dict(child.module.named_parameters())
    assert not tensors["asked.weight"][4:].any()
    assert all(tensors[name][4:].all() for name in ("key.weight", "bonus"))
    child.module(torch.randn(5, 3, dtype=torch.float64)).square().sum().backward()
    gradient = tensors["asked.weight"].grad
    assert gradient is not None
    assert gradient[4:].all()
    assert gg.clean(child).parameter_count == graph.parameter_count
