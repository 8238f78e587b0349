"""Batch, layer, RMS, group and instance norm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from graphgrow.ir import flow as fl
from graphgrow.ir.facts import NormKind, Slot, StatisticKind
from graphgrow.ir.terms import Term, product
from graphgrow.ir.value import Fresh, Value
from graphgrow.layers import RootMeanSquareNorm
from graphgrow.ops.broadcast import align
from graphgrow.ops.call import Call, RuleDeclined, meta_shape
from graphgrow.ops.registry import rule

_POSITIONS: dict[type, int] = {nn.BatchNorm1d: 1, nn.InstanceNorm1d: 1, nn.BatchNorm3d: 3, nn.InstanceNorm3d: 3}


def _per_channel(
    call: Call,
    input: Value,
    statistics: Sequence[Value | None],
    weight: Value | None,
    bias: Value | None,
    activated: bool = False,
) -> Value:
    """A map of each channel alone, with one number of each parameter for a channel.

    What is standardised is scaled and moved: new units are zero where weight and bias are, and shares where both are,
    but where it is `activated` as well.
    """
    over_batch = not isinstance(call.module, (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d))
    averaged = (*input.axes[: int(over_batch)], *input.axes[2:])
    call.freeze(averaged, "averaged over by a norm of each channel")
    for parameter in (*statistics, weight, bias):
        if parameter is not None:
            call.same(input.axes[1], parameter.axes[0])
    known = [call.operand(value) for value in (input, *statistics) if value is not None]
    flow: fl.Flow = fl.Pointwise(tuple(known), constant_safe=False)
    flow = flow if weight is None else fl.Mul((flow, call.operand(weight)))
    flow = flow if bias is None else fl.Add((flow, call.operand(bias)))
    return call.output(input.axes, fl.Pointwise((flow,)) if activated else flow)


@rule(F.instance_norm)
def instance_norm(
    call: Call,
    input: Value,
    running_mean: Value | None = None,
    running_var: Value | None = None,
    weight: Value | None = None,
    bias: Value | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Value:
    """(N, C, ...), each channel of each sample by its own statistics."""
    return batch_norm(call, input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps)


@rule(F.batch_norm)
def batch_norm(
    call: Call,
    input: Value,
    running_mean: Value | None,
    running_var: Value | None,
    weight: Value | None = None,
    bias: Value | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Value:
    """(N, C, ...), each channel by its own statistics; those of the input alone are taken over axes that may grow."""
    for value, fresh in zip(
        (running_mean, running_var, weight, bias), (Fresh.ZEROS, Fresh.ONES, Fresh.ONES, Fresh.ZEROS), strict=True
    ):
        call.starts(value, fresh)
    if call.node.target is F.batch_norm and running_mean is None and running_var is None and bias is None:
        return _standardised(call, input, weight, eps)
    return _per_channel(call, input, (running_mean, running_var), weight, bias)


def _standardised(call: Call, input: Value, weight: Value | None, eps: float) -> Value:
    """Each channel minus its mean, over its deviation: the weights of convolutions that are standardised."""
    axes = (0, *range(2, len(input.axes)))
    term = tuple(input.axes[axis] for axis in axes)
    flows: list[fl.Flow] = [call.operand(input)]
    if weight is not None:
        call.same(input.axes[1], weight.axes[0])
        flows.append(call.operand(weight))
    otherwise = fl.Pointwise(tuple(flows), constant_safe=False)
    output = call.output(input.axes, fl.Normalised(flows[0], term, otherwise))
    slot = Slot(call.argument_path(7, "eps"), False)
    call.normalise(NormKind.LAYER, input, axes, term, None, None, slot, eps, 0.0, output)
    return output


@rule(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d,
      nn.SyncBatchNorm)  # fmt: skip
def channel_norm_module(call: Call, input: Value) -> Value:
    """nn.BatchNorm*d and nn.InstanceNorm*d; nn.SyncBatchNorm, which takes any number of axes."""
    return _norm_of_channels(call, input)


def _norm_of_channels(call: Call, input: Value, activated: bool = False) -> Value:
    flat = len(input.axes) == 2 and isinstance(call.module, nn.BatchNorm1d)
    if (
        not flat
        and not isinstance(call.module, nn.SyncBatchNorm)
        and len(input.axes) != _POSITIONS.get(type(call.module), 2) + 2
    ):
        raise RuleDeclined("an input without a batch axis")
    call.attribute("num_features", input.axes[1])
    weight, bias = call.parameter("weight", Fresh.ONES), call.parameter("bias", Fresh.ZEROS)
    statistics = [call.parameter("running_mean", Fresh.ZEROS), call.parameter("running_var", Fresh.ONES)]
    return _per_channel(call, input, statistics, weight, bias, activated)


def _normalise_last(
    call: Call,
    kind: NormKind,
    input: Value,
    rank: int,
    weight: Value | None,
    bias: Value | None,
    eps: Slot | None,
    eps_value: float,
    offset: float = 0.0,
) -> Value:
    term = input.axes[len(input.axes) - rank :]
    flows: list[fl.Flow] = [call.operand(input)]
    for parameter, fresh in ((weight, Fresh.ONES), (bias, Fresh.ABOVE)):  # a bias is zero where it need not be free
        if parameter is None:
            continue
        call.starts(parameter, fresh)
        for mine, theirs in zip(term, parameter.axes, strict=True):
            call.same(mine, theirs)
        flows.append(call.operand(parameter))
    axes = tuple(range(len(input.axes) - rank, len(input.axes)))
    affine = () if weight is None or offset else tuple(flows[1:])  # shares of w are none of 1 + w
    moved = None if bias is None else flows[-1]
    output = call.output(input.axes, fl.Normalised(flows[0], term, fl.Pointwise(tuple(flows)), affine, moved))
    call.normalise(kind, input, axes, term, weight, bias, eps, eps_value, offset, output)
    return output


@rule(F.layer_norm)
def layer_norm(
    call: Call,
    input: Value,
    normalized_shape: Sequence[int],
    weight: Value | None = None,
    bias: Value | None = None,
    eps: float = 1e-5,
) -> Value:
    """Statistics over the last axes."""
    rank = len(normalized_shape)
    call.literal(call.argument_path(1, "normalized_shape"), *input.axes[-rank:], as_tuple=True)
    slot = Slot(call.argument_path(4, "eps"), False)
    return _normalise_last(call, NormKind.LAYER, input, rank, weight, bias, slot, eps)


@rule(F.rms_norm)
def rms_norm(
    call: Call, input: Value, normalized_shape: Sequence[int], weight: Value | None = None, eps: float | None = None
) -> Value:
    """Root mean square over the last axes; without an eps, torch takes that of the dtype."""
    rank = len(normalized_shape)
    call.literal(call.argument_path(1, "normalized_shape"), *input.axes[-rank:], as_tuple=True)
    slot = Slot(call.argument_path(3, "eps"), False)
    return _normalise_last(call, NormKind.RMS, input, rank, weight, None, slot, _eps(call, eps))


def _eps(call: Call, eps: float | None) -> float:
    """The eps of an RMS norm; left out, it is that of the type in which torch computes: at least float32."""
    if eps is not None:
        return eps
    return torch.finfo(torch.float64 if call.meta.dtype == torch.float64 else torch.float32).eps


@rule(nn.LayerNorm, nn.RMSNorm)
def last_norm_module(call: Call, input: Value) -> Value:
    """nn.LayerNorm and nn.RMSNorm."""
    module = call.module
    assert isinstance(module, (nn.LayerNorm, nn.RMSNorm))
    rank = len(module.normalized_shape)
    call.attribute("normalized_shape", *input.axes[-rank:], as_tuple=True)
    kind = NormKind.LAYER if isinstance(module, nn.LayerNorm) else NormKind.RMS
    weight, bias = call.parameter("weight", Fresh.ONES), call.parameter("bias", Fresh.ABOVE)
    return _normalise_last(call, kind, input, rank, weight, bias, Slot(("eps",), True), _eps(call, module.eps))


@rule(RootMeanSquareNorm)
def root_mean_square_norm(call: Call, input: Value) -> Value:
    """An RMS norm with the casts of language models, by w or by 1 + w."""
    module = call.module
    assert isinstance(module, RootMeanSquareNorm)
    weight = call.parameter("weight", Fresh.ZEROS if module.offset else Fresh.ONES)
    if weight is not None:
        call.attribute("width", weight.axes[0])
    slot = Slot(("eps",), True)
    return _normalise_last(call, NormKind.RMS, input, 1, weight, None, slot, module.eps, module.offset)


@rule(F.group_norm)
def group_norm(
    call: Call,
    input: Value,
    num_groups: int,
    weight: Value | None = None,
    bias: Value | None = None,
    eps: float = 1e-5,
) -> Value:
    """(N, C, ...): each group of channels, with all positions, by its own statistics."""
    group = _group_norm(call, input, int(num_groups), weight, bias, eps)
    call.literal(call.argument_path(1, "num_groups"), *group)
    return call.output(*_group_flow(call, input, weight, bias, group))


@rule(nn.GroupNorm)
def group_norm_module(call: Call, input: Value) -> Value:
    """nn.GroupNorm."""
    module = call.module
    assert isinstance(module, nn.GroupNorm)
    weight, bias = call.parameter("weight", Fresh.ONES), call.parameter("bias", Fresh.ZEROS)
    group = _group_norm(call, input, module.num_groups, weight, bias, module.eps)
    call.attribute("num_channels", input.axes[1])
    call.attribute("num_groups", *group)
    return call.output(*_group_flow(call, input, weight, bias, group))


def _group_norm(
    call: Call, input: Value, groups: int, weight: Value | None, bias: Value | None, eps: float
) -> tuple[Any, ...]:
    """The axis of groups (a fixed 1 where there is but one group), with the facts stated."""
    channels = input.axes[1]
    call.starts(weight, Fresh.ONES)
    call.starts(bias, Fresh.ZEROS)
    group: Term
    width: Term
    if groups == channels.size:
        group, width = channels, call.fixed(1, "one channel in each group")
    elif groups == 1:
        group, width = call.fixed(1, "a single group"), channels
    else:
        group, width = call.factor(channels, (groups, channels.size // groups), ("groups", "group_width"))
    for parameter in (weight, bias):
        if parameter is not None:
            call.same(parameter.axes[0], product((group, width)) if 1 < groups < channels.size else channels)
    call.freeze(input.axes[2:], "positions that a group norm averages over")
    call.normalise(NormKind.GROUP, input, (1,), (width,), weight, bias, None, eps)
    return (group,)


def _group_flow(
    call: Call, input: Value, weight: Value | None, bias: Value | None, group: tuple[Any, ...]
) -> tuple[Any, fl.Flow]:
    operands = tuple(call.operand(value) for value in (input, weight, bias) if value is not None)
    width = call.facts.normalisations[-1].term
    return input.axes, fl.Normalised(operands[0], width, fl.Pointwise(operands))


@rule("timm.layers.norm_act.BatchNormAct2d")
def batch_norm_and_activation(call: Call, input: Value) -> Value:
    """A batch norm of timm that also activates: one leaf, so that train() and eval() stay alive."""
    if any(True for part in (call.module.act, call.module.drop) for _ in part.parameters()):  # type: ignore[union-attr]
        raise RuleDeclined("its activation has parameters of its own")
    return _norm_of_channels(call, input, activated=not isinstance(call.module.act, nn.Identity))  # type: ignore[union-attr]


@rule(F.normalize)
def normalise_vector(
    call: Call, input: Value, p: float = 2.0, dim: Any = 1, eps: float = 1e-12, out: None = None
) -> Value:
    """Division by a norm along an axis or several, each unit of which depends on all, and which zeros do not change."""
    output = call.output(input.axes, fl.Pointwise((call.operand(input),), zero=True))
    several = dim if isinstance(dim, (tuple, list)) else (dim,)
    slot, axes = Slot(call.argument_path(3, "eps"), False), [call.axis(input, one) for one in several]
    if p <= 0:  # zeros make such a norm zero, or leave their number in it
        call.freeze((input.axes[axis] for axis in axes), f"a norm of order {p} over it")
    call.statistic(StatisticKind.NORM, input, axes, output, float(p), inverse=True, eps=slot, eps_value=float(eps))
    return output


@rule(F.cosine_similarity, nn.CosineSimilarity, nn.PairwiseDistance, F.pairwise_distance)
def compared(call: Call, input: Value, other: Value, *args: Any, **options: Any) -> Value:
    """Two vectors compared as a whole: an angle, or a distance."""
    axes = align(call, [input.axes, other.axes])
    fallback = 1 if call.node.target in (F.cosine_similarity,) else -1
    dim = getattr(call.module, "dim", args[0] if args and fallback == 1 else options.get("dim", fallback))
    at = int(dim) % len(axes)
    call.freeze([axes[at]], "compared as a whole")
    drops = [[at - len(axes)] if len(value.axes) >= len(axes) - at else [] for value in (input, other)]
    flow = fl.Pointwise(tuple(call.operand(v, drop=d) for v, d in zip((input, other), drops, strict=True)))
    kept = [term for i, term in enumerate(axes) if i != at]
    return call.output(kept, flow)


@rule(torch.cdist)
def distances(call: Call, x1: Value, x2: Value, p: float = 2.0, compute_mode: Any = None) -> Value:
    """(..., P, M) and (..., R, M) -> (..., P, R): norms of differences, to which zeros on both sides add nothing."""
    call.same(x1.axes[-1], x2.axes[-1])
    if p <= 0:  # a count of what differs
        call.freeze([x1.axes[-1]], f"a norm of order {p} over it")
    batch = align(call, [x1.axes[:-2], x2.axes[:-2]]) if max(len(x1.axes), len(x2.axes)) > 2 else ()
    flow = fl.Pointwise((call.operand(x1, drop=[-1]), call.operand(x2, drop=[-1])))
    output = call.output((*batch, x1.axes[-2], x2.axes[-2]), flow)
    for value in (x1, x2):
        call.statistic(StatisticKind.NORM, value, [len(value.axes) - 1], output, float(p))
    return output


@rule(F.pdist)
def distances_within(call: Call, input: Value, p: float = 2.0) -> Value:
    """(N, M) -> (N (N - 1) / 2): norms of differences of rows, to which zeros add nothing."""
    call.freeze(input.axes[:1], "compared with each other")
    if p <= 0:
        call.freeze(input.axes[1:], f"a norm of order {p} over it")
    pairs = [call.fixed(size, "compared with each other") for size in meta_shape(call.meta)]
    output = call.output(pairs, fl.Pointwise(()))
    call.statistic(StatisticKind.NORM, input, [1], output, float(p))
    return output


@rule(nn.LocalResponseNorm, F.local_response_norm)
def local_response_norm(call: Call, input: Value, *args: Any, **kwargs: Any) -> Value:
    """Each channel is divided by its neighbours'."""
    call.freeze([input.axes[1]], "normalised by neighbouring channels")
    return call.output(input.axes, fl.Pointwise((call.operand(input),), zero=True))
