"""Norms: those of each channel alone, and those over the axis itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import graphgrow as gg
from graphgrow.layers import RootMeanSquareNorm
from tests.ops.probe import Draw, Probe, normal_tensor, op
from tests.ops.square import Case
from tests.ops.squares import squares
from tests.preserved import assert_preserved

CHANNELS = "free>free mean>free copy>copy"  # constant units are refused: the gradient of their scale would explode
SCALED = "free>free|zero mean>free|zero copy>copy|share"  # by what weight and bias hold
FINITE = "free>free zero>free mean>free copy>copy"
ZERO_KEEPING = "free>free zero>zero mean>free copy>copy"
GROUPS = "free>free zero>free mean>free copy>copy"
OVER_LAYER = "mean>zero copy>copy"
OVER_BIASED = "mean>free|zero copy>copy"  # by what the bias holds
LEVELLED = "level>zero copy>copy"  # the mean of all that is normalised, where this is a part of it
OVER_RMS = "zero>zero copy>copy"

BATCH_NORMS: list[Any] = [nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d]
INSTANCE_NORMS: list[Any] = [nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d]


def _stir(module: nn.Module) -> nn.Module:
    """Parameters and statistics as training leaves them, none of them trivial."""
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if tensor.is_floating_point():
            tensor.data.uniform_(0.5, 2) if "var" in name or "weight" in name else tensor.data.normal_()
    return module


def _per_channel(kind: Any, **options: Any) -> Callable[[Draw], nn.Module]:
    def build(draw: Draw) -> nn.Module:
        width, rank = draw(2, 5), int(kind.__name__[-2])
        x = normal_tensor(draw, draw(2, 3), width, *(draw(2, 4) for _ in range(rank)))
        return Probe(lambda m: m.op(m.x), {"x": x}, {"op": _stir(kind(width, **options))})

    return build


def _synchronised(draw: Draw) -> nn.Module:
    width = draw(2, 5)
    x = normal_tensor(draw, 3, width, *([2] * draw(0, 2)))
    return Probe(lambda m: m.op(m.x), {"x": x}, {"op": _stir(nn.SyncBatchNorm(width))})


def _flat_batch_norm(draw: Draw) -> nn.Module:
    width = draw(2, 5)
    return Probe(lambda m: m.op(m.x), {"x": normal_tensor(draw, 4, width)}, {"op": _stir(nn.BatchNorm1d(width))})


def _batch_norm(training: bool) -> Callable[[Draw], nn.Module]:
    def build(draw: Draw) -> nn.Module:
        width = draw(2, 5)
        sources = {"x": normal_tensor(draw, 3, width, 2), "weight": normal_tensor(draw, width),
                   "bias": normal_tensor(draw, width)}  # fmt: skip
        buffers = {"mean": normal_tensor(draw, width), "var": normal_tensor(draw, width).abs() + 0.5}
        return Probe(lambda m: op(F.batch_norm, m.x, m.mean, m.var, m.weight, m.bias, training), sources, None, buffers)

    return build


def _standardised(gain: bool, kernel: int) -> Callable[[Draw], nn.Module]:
    """The weight of a convolution, row by row over all else, as timm's StdConv2d and ScaledStdConv2d have it."""

    def build(draw: Draw) -> nn.Module:
        rows = draw(2, 4)
        sources = {"x": normal_tensor(draw, rows, draw(2, 4), kernel), "gain": normal_tensor(draw, rows, 1)}

        def run(m: Any) -> Any:
            options = {"weight": (m.gain * 0.5).view(-1)} if gain else {}
            whole = m.x.reshape(1, rows, -1)
            return op(F.batch_norm, whole, None, None, training=True, momentum=0.0, eps=1e-3, **options)

        return Probe(run, sources if gain else {"x": sources["x"]})

    return build


def _alone(draw: Draw) -> nn.Module:
    x = normal_tensor(draw, 1, draw(2, 4), draw(3, 5))
    return Probe(lambda m: op(F.batch_norm, m.x, None, None, None, None, True), {"x": x})


def _instance_norm(draw: Draw) -> nn.Module:
    width = draw(2, 5)
    sources = {"x": normal_tensor(draw, 3, width, 4), "weight": normal_tensor(draw, width)}
    return Probe(lambda m: op(F.instance_norm, m.x, weight=m.weight), sources)


def _last(kind: Any, rank: int, **options: Any) -> Callable[[Draw], nn.Module]:
    def build(draw: Draw) -> nn.Module:
        shape = [draw(2, 5) for _ in range(rank)]
        layer = _stir(kind(shape, **options))
        return Probe(lambda m: m.op(m.x), {"x": normal_tensor(draw, 2, 3, *shape)}, {"op": layer})

    return build


def _root_mean_square(offset: float) -> Callable[[Draw], nn.Module]:
    def build(draw: Draw) -> nn.Module:
        width = draw(2, 5)
        layer = _stir(RootMeanSquareNorm(width, eps=1e-2, offset=offset))
        return Probe(lambda m: m.op(m.x), {"x": normal_tensor(draw, 2, 3, width)}, {"op": layer})

    return build


def _last_function(target: Any, named: bool) -> Callable[[Draw], nn.Module]:
    def build(draw: Draw) -> nn.Module:
        width = draw(2, 5)
        sources = {"x": normal_tensor(draw, 3, width), "weight": normal_tensor(draw, width)}
        if target is F.layer_norm:
            sources["bias"] = normal_tensor(draw, width)
        if target is F.rms_norm:
            return Probe(lambda m: op(target, m.x, (width,), m.weight, 1e-3), sources)
        if named:
            return Probe(lambda m: op(target, m.x, normalized_shape=[width], weight=m.weight, bias=m.bias), sources)
        return Probe(lambda m: op(target, m.x, (width,), m.weight, m.bias, 1e-3), sources)

    return build


def _bias_alone(draw: Draw) -> nn.Module:
    width = draw(2, 5)
    sources = {"x": normal_tensor(draw, 3, width), "bias": normal_tensor(draw, width)}
    return Probe(lambda m: op(F.layer_norm, m.x, (width,), bias=m.bias), sources)


def _group(groups: int, width: int, function: bool = False) -> Callable[[Draw], nn.Module]:
    def build(draw: Draw) -> nn.Module:
        channels = groups * width
        x = normal_tensor(draw, 2, channels, *(draw(2, 3) for _ in range(draw(0, 2))), 2)
        if function:
            sources = {"x": x, "weight": normal_tensor(draw, channels), "bias": normal_tensor(draw, channels)}
            return Probe(lambda m: op(F.group_norm, m.x, groups, m.weight, m.bias), sources)
        return Probe(lambda m: m.op(m.x), {"x": x}, {"op": _stir(nn.GroupNorm(groups, channels))})

    return build


def _joined(layer: Callable[[int], nn.Module], *positions: int) -> Callable[[Draw], nn.Module]:
    """A norm over two axes, one behind the other: copies of one part alone would weigh more."""

    def build(draw: Draw) -> nn.Module:
        a, b = draw(2, 4), draw(2, 4)
        sources = {"x": normal_tensor(draw, 3, a, *positions), "y": normal_tensor(draw, 3, b, *positions)}
        return Probe(lambda m: m.op(torch.cat([m.x, m.y], 1)), sources, {"op": _stir(layer(a + b))})

    return build


def _joined_twice(draw: Draw) -> nn.Module:
    """A norm over an axis beside itself: copies in both parts."""
    width = draw(2, 4)
    return Probe(
        lambda m: m.op(torch.cat([m.x, m.x.tanh()], 1)),
        {"x": normal_tensor(draw, 3, width)},
        {"op": _stir(nn.LayerNorm(2 * width))},
    )


def _neighbours(draw: Draw) -> nn.Module:
    return Probe(lambda m: m.op(m.x), {"x": normal_tensor(draw, 2, 5, 3)}, {"op": nn.LocalResponseNorm(2)})


def _neighbours_function(draw: Draw) -> nn.Module:
    return Probe(lambda m: op(F.local_response_norm, m.x, 2), {"x": normal_tensor(draw, 2, 5, 3)})


def _compared(target: Any, **options: Any) -> Callable[[Draw], nn.Module]:
    def build(draw: Draw) -> nn.Module:
        rows, width = draw(2, 3), draw(2, 4)
        other = draw(2, 3) if target is torch.cdist else rows
        sources = {"x": normal_tensor(draw, rows, width), "y": normal_tensor(draw, other, width)}
        if isinstance(target, type):
            return Probe(lambda m: m.op(m.x, m.y), sources, {"op": target()})
        return Probe(lambda m: op(target, m.x, m.y, **options), sources)

    return build


def _within(p: float) -> Callable[[Draw], nn.Module]:
    return lambda draw: Probe(lambda m: op(F.pdist, m.x, p), {"x": normal_tensor(draw, 4, 3)})


def _matrix(draw: Draw) -> nn.Module:
    return Probe(lambda m: op(F.normalize, m.x, dim=(1, 2)), {"x": normal_tensor(draw, 2, 3, 4)})


def _vector_by(p: float) -> Callable[[Draw], nn.Module]:
    return lambda draw: Probe(lambda m: op(F.normalize, m.x, p), {"x": normal_tensor(draw, 2, 5)})


def _vector(draw: Draw) -> nn.Module:
    return Probe(lambda m: op(F.normalize, m.x), {"x": normal_tensor(draw, 2, 5)})


CASES = [
    *(Case((kind,), _per_channel(kind), {"x.1": SCALED}) for kind in BATCH_NORMS),
    *(Case((kind,), _per_channel(kind, affine=False, track_running_stats=False), {"x.1": CHANNELS}, "bare")
      for kind in BATCH_NORMS),
    Case((nn.SyncBatchNorm,), _synchronised, {"x.1": SCALED}),
    Case((nn.BatchNorm1d,), _flat_batch_norm, {"x.1": SCALED}, "flat"),
    *(Case((kind,), _per_channel(kind, affine=True), {"x.0": CHANNELS, "x.1": SCALED}) for kind in INSTANCE_NORMS),
    Case((F.instance_norm,), _instance_norm, {"x.1": SCALED}),
    *(Case((F.batch_norm,), _standardised(gain, 3), {"x.0": CHANNELS, "x.1": LEVELLED, "x.2": LEVELLED}, f"rows-{gain}")
      for gain in (False, True)),
    Case((F.batch_norm,), _standardised(True, 1), {"x.0": CHANNELS, "x.1": OVER_LAYER}, "rows-of-one"),
    Case((F.batch_norm,), _alone, {"x.0": LEVELLED, "x.1": CHANNELS, "x.2": OVER_LAYER}, "alone"),
    *(Case((F.batch_norm,), _batch_norm(training), {"x.1": SCALED}, str(training)) for training in (False, True)),
    Case((nn.LayerNorm,), _last(nn.LayerNorm, 1), {"x.0": FINITE, "x.1": FINITE, "x.2": OVER_BIASED}),
    Case((nn.LayerNorm,), _last(nn.LayerNorm, 1, bias=False), {"x.0": FINITE, "x.1": FINITE, "x.2": OVER_LAYER},
         "no-bias"),
    Case((nn.LayerNorm,), _last(nn.LayerNorm, 1, elementwise_affine=False),
         {"x.0": FINITE, "x.1": FINITE, "x.2": "mean>zero copy>copy"}, "bare"),
    Case((nn.LayerNorm,), _last(nn.LayerNorm, 2),
         {"x.0": FINITE, "x.1": FINITE, **dict.fromkeys(("x.2", "x.3"), "level>free|zero copy>copy")}, "two-axes"),
    Case((nn.RMSNorm,), _last(nn.RMSNorm, 1, eps=1e-2), {"x.0": FINITE, "x.1": FINITE, "x.2": OVER_RMS}),
    Case((nn.RMSNorm,), _last(nn.RMSNorm, 1), {"x.0": FINITE, "x.1": FINITE, "x.2": OVER_RMS}, "default-eps"),
    Case((nn.RMSNorm,), _last(nn.RMSNorm, 2, eps=1e-2),
         {"x.0": FINITE, "x.1": FINITE, "x.2": OVER_RMS, "x.3": OVER_RMS}, "two-axes"),
    Case((nn.RMSNorm,), _last(nn.RMSNorm, 2, eps=1e-2, elementwise_affine=False),
         {"x.0": FINITE, "x.1": FINITE, "x.2": OVER_RMS, "x.3": OVER_RMS}, "two-axes-bare"),
    *(Case((RootMeanSquareNorm,), _root_mean_square(offset), {"x.0": FINITE, "x.1": FINITE, "x.2": OVER_RMS},
           str(offset)) for offset in (0.0, 1.0)),
    *(Case((F.layer_norm,), _last_function(F.layer_norm, named), {"x.0": FINITE, "x.1": OVER_BIASED}, label)
      for named, label in ((False, ""), (True, "by-name"))),
    Case((F.layer_norm,), _bias_alone, {"x.0": FINITE, "x.1": "copy>copy"}, "bias-alone"),
    Case((F.rms_norm,), _last_function(F.rms_norm, False), {"x.0": FINITE, "x.1": OVER_RMS}),
    *(Case((target,), _group(2, 3, function), {"x.0": FINITE, "x.1:0": GROUPS, "x.1:1": "copy>copy"})
      for target, function in ((nn.GroupNorm, False), (F.group_norm, True))),
    Case((nn.GroupNorm,), _group(1, 4), {"x.0": FINITE, "x.1": "copy>copy"}, "one-group"),
    Case((nn.GroupNorm,), _group(4, 1), {"x.0": FINITE, "x.1": FINITE}, "one-channel-each"),
    Case((nn.LayerNorm,), _joined(nn.LayerNorm), {"x.0": FINITE, "x.1": "", "y.1": ""}, "joined"),
    Case((nn.RMSNorm,), _joined(nn.RMSNorm), {"x.0": FINITE, "x.1": "zero>zero", "y.1": "zero>zero"}, "joined"),
    Case((nn.GroupNorm,), _joined(lambda n: nn.GroupNorm(1, n), 2), {"x.0": FINITE, "x.1": "", "y.1": ""}, "joined"),
    Case((nn.LayerNorm,), _joined_twice, {"x.0": FINITE, "x.1": "copy>copy"}, "joined-twice"),
    Case((nn.LocalResponseNorm,), _neighbours, {"x.0": ZERO_KEEPING, "x.2": ZERO_KEEPING}),
    Case((F.local_response_norm,), _neighbours_function, {"x.0": ZERO_KEEPING, "x.2": ZERO_KEEPING}),
    Case((F.normalize,), _vector, {"x.0": ZERO_KEEPING, "x.1": "zero>zero copy>copy"}),
    Case((F.normalize,), _matrix, {"x.0": ZERO_KEEPING, "x.1": "zero>zero copy>copy", "x.2": "zero>zero copy>copy"},
         "two-axes"),
    *(Case((F.normalize,), _vector_by(p), {"x.0": ZERO_KEEPING}, f"order-{p}") for p in (0.0, -1.0, -math.inf)),
    Case((F.cosine_similarity,), _compared(F.cosine_similarity), {"x.0": FINITE}),
    Case((F.cosine_similarity,), _compared(F.cosine_similarity, dim=0), {"x.1": FINITE}, "first"),
    Case((F.pairwise_distance,), _compared(F.pairwise_distance), {"x.0": FINITE}),
    Case((nn.CosineSimilarity,), _compared(nn.CosineSimilarity), {"x.0": FINITE}),
    Case((nn.PairwiseDistance,), _compared(nn.PairwiseDistance), {"x.0": FINITE}),
    *(Case((torch.cdist,), _compared(torch.cdist, p=p),
           {"x.0": FINITE, "x.1": "zero>- copy>-", "y.0": FINITE}, f"order-{p}") for p in (1.0, 2.0, math.inf)),
    *(Case((F.pdist,), _within(p),
           {"x.1": "zero>- copy>-"} if p else {}, f"order-{p}") for p in (0.0, 1.0, 2.0)),
    Case((torch.cdist,), _compared(torch.cdist, p=0.0), {"x.0": FINITE, "y.0": FINITE}, "order-0"),
]  # fmt: skip


test_square = squares(CASES, 2)


def test_new_units_of_a_batch_norm_start_as_those_of_a_new_one() -> None:
    """A variance of zero would multiply what is fresh by 1 / sqrt(eps)."""
    model = nn.Sequential(nn.Linear(3, 4), _stir(nn.BatchNorm1d(4)), nn.Linear(4, 2))
    norm = gg.apply(gg.trace(model.eval(), torch.randn(2, 3)), "widen(0, extra=3)").module.get_submodule("1")
    new = nn.BatchNorm1d(3)
    for name in ("weight", "bias", "running_mean", "running_var"):
        assert torch.equal(getattr(norm, name)[4:], getattr(new, name)), name


class _NormedHeads(nn.Module):
    """Attention whose queries and keys are normalised over the width of a head."""

    def __init__(self, norms: tuple[nn.Module, nn.Module]) -> None:
        super().__init__()
        self.qkv, self.out, (self.norm_q, self.norm_k) = nn.Linear(6, 24), nn.Linear(8, 3), norms

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).view(*x.shape[:2], 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(self.norm_q(q), self.norm_k(k), v)
        result: torch.Tensor = self.out(y.transpose(1, 2).flatten(2))
        return result


def test_normalised_queries_and_keys_widen_where_a_bias_can_move_them() -> None:
    """Both come out of their norms as zero: one side's bias is free, so that the other side has a gradient."""
    torch.manual_seed(0)
    x = torch.randn(2, 3, 6, dtype=torch.float64)
    model = _NormedHeads((_stir(nn.LayerNorm(4)), _stir(nn.LayerNorm(4)))).double()
    graph = gg.trace(model, x)
    child = gg.apply(graph, "widen(qkv:head_width, extra=2)")
    assert torch.allclose(child.module(x), model(x), rtol=1e-12, atol=1e-12)
    verdict = gg.verify(graph, child, modes=("eval", "train", "gradients", "alive"))
    assert verdict.preserved, verdict
    biases = [child.module.get_parameter(f"norm_{side}.bias")[4:] for side in "qk"]
    assert sorted(bool(bias.any()) for bias in biases) == [False, True]
    gg.clean(child)  # what is removed is found by the same rules


@pytest.mark.parametrize(
    "norms",
    [(nn.LayerNorm(4, bias=False), nn.LayerNorm(4, bias=False)), (nn.RMSNorm(4), nn.RMSNorm(4))],
    ids=["layer", "rms"],
)
def test_normalised_queries_and_keys_without_a_bias_are_split_alone(norms: tuple[nn.Module, nn.Module]) -> None:
    graph = gg.trace(_NormedHeads(norms), torch.randn(2, 3, 6))
    with pytest.raises(gg.Declined, match="both sides of a product would be zero"):
        gg.apply(graph, "widen(qkv:head_width, extra=2)")
    assert gg.verify(graph, gg.apply(graph, "split(qkv:head_width)")).preserved


def test_one_norm_for_queries_and_keys_cannot_be_zero_on_one_side_alone() -> None:
    norm = nn.LayerNorm(4)
    graph = gg.trace(_NormedHeads((norm, norm)), torch.randn(2, 3, 6))
    with pytest.raises(gg.Declined, match="neither of them zero"):
        gg.apply(graph, "widen(qkv:head_width, extra=2)")


def test_a_layer_norm_with_a_bias_and_no_weight_is_split_alone() -> None:
    """What would be rescaled is its output, with the bias in it: widening moved the outputs."""

    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last, self.shift = nn.Linear(3, 6), nn.Linear(6, 2), nn.Parameter(torch.randn(6))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.last(F.layer_norm(self.first(x), (6,), bias=self.shift))
            return result

    graph = gg.trace(Shifted(), torch.randn(4, 3))
    with pytest.raises(gg.Declined, match="with a bias and no weight"):
        gg.apply(graph, "widen(first, extra=2)")
    assert gg.verify(graph, gg.apply(graph, "split(first)")).preserved


class _NormedPixels(nn.Module):
    """Attention of pixels, as LeViT and SHViT have it: a batch norm behind each map."""

    def __init__(self, norms: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Conv2d(3, size, 1, bias=False) for size in (4, 4, 3, 2))
        self.norm_q, self.norm_k = _stir(norms(4)), _stir(norms(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (t.flatten(2) for t in (self.norm_q(self.q(x)), self.norm_k(self.k(x)), self.v(x)))
        weights = (q.transpose(1, 2) @ k).softmax(-1)
        result: torch.Tensor = self.out((v @ weights.transpose(1, 2)).unflatten(2, x.shape[2:]))
        return result


@pytest.mark.parametrize("mutation", ["widen(q, extra=2)", "split(q, units=[0, 3])"])
def test_batch_normed_queries_and_keys_grow(mutation: str) -> None:
    """New units of one norm are zero, or shares, by its weight and its bias; those have a gradient."""
    torch.manual_seed(0)
    graph = gg.trace(_NormedPixels(nn.BatchNorm2d).double(), torch.randn(2, 3, 3, 4).double())
    child = gg.apply(graph, mutation, seed=1)
    verdict = gg.verify(graph, child, modes=("eval", "train", "gradients", "alive"))
    assert verdict.preserved, verdict


class BatchNormAct2d(nn.BatchNorm2d):
    """Like timm's: a batch norm that also activates, and one node of the graph."""

    def __init__(self, size: int, act: nn.Module) -> None:
        super().__init__(size)
        self.act, self.drop = act, nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.act(super().forward(x))
        return result


@pytest.mark.parametrize(("act", "goes"), [(nn.Identity(), True), (nn.Sigmoid(), False)])
def test_what_a_batch_norm_also_activates_is_neither_zero_nor_shared(
    monkeypatch: pytest.MonkeyPatch, act: nn.Module, goes: bool
) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(BatchNormAct2d, "__module__", "timm.layers.norm_act")
    graph = gg.trace(_NormedPixels(lambda size: BatchNormAct2d(size, act)), torch.randn(2, 3, 3, 4))
    for mutation in ("widen(q, extra=2)", "split(q)"):
        if goes:
            assert_preserved(graph, gg.apply(graph, mutation))
            continue
        with pytest.raises(gg.Declined, match=r"neither of them zero|counts copies twice"):
            gg.apply(graph, mutation)
