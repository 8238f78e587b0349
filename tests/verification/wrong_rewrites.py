"""Wrong rewrites: correctly grown graphs that are then damaged the way a careless pass would have written them."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

import graphgrow as gg
from tests.verification import wrong_models as models

Damage = Callable[[fx.GraphModule], object]


@dataclass(frozen=True)
class Wrong:
    """One wrong rewrite: a model, right mutations, and what is then damaged."""

    model: Callable[[], gg.Graph]
    mutations: Sequence[str]
    damage: Damage
    modes: tuple[str, ...] = ("eval", "train")

    def made(self) -> tuple[gg.Graph, gg.Graph]:
        """The parent, and the wrong child."""
        parent = self.model()
        child = gg.apply(parent, list(self.mutations), share=False)
        with torch.no_grad():
            self.damage(child.module)
        child.module.graph.lint()
        child.module.recompile()
        return parent, child


# -- what is damaged ---------------------------------------------------------------------------------------------


def tensor(module: nn.Module, name: str) -> torch.Tensor:
    """A parameter or buffer."""
    return dict([*module.named_parameters(), *module.named_buffers()])[name]


def change(name: str, edit: Callable[[torch.Tensor], object]) -> Damage:
    """Edit a tensor in place."""
    return lambda module: edit(tensor(module, name))


def rolled(name: str, axis: int, places: int = 1) -> Damage:
    """Move the entries of a tensor along an axis."""
    return change(name, lambda t: t.copy_(t.roll(places, axis)))


def swapped(name: str, axis: int, order: Sequence[int]) -> Damage:
    """Put the entries of a tensor along an axis into another order."""
    return change(name, lambda t: t.copy_(t.index_select(axis, torch.tensor(order))))


def attribute(path: str, name: str, value: Any) -> Damage:
    """Set an attribute of a module."""
    return lambda module: setattr(module.get_submodule(path), name, value)


def together(*damages: Damage) -> Damage:
    """Several damages that only go together."""
    return lambda module: [damage(module) for damage in damages]


def replaced(path: str, module: nn.Module) -> Damage:
    """Put another module in the place of one."""
    return lambda graph: graph.set_submodule(path, module)


def node(module: fx.GraphModule, name: str) -> fx.Node:
    """A node by its name in the graph."""
    return next(n for n in module.graph.nodes if n.name == name)


def arguments(name: str, edit: Callable[[tuple[Any, ...]], tuple[Any, ...]], **named: Any) -> Damage:
    """Other arguments for a node."""

    def damage(module: fx.GraphModule) -> None:
        found = node(module, name)
        found.args, found.kwargs = edit(found.args), {**found.kwargs, **named}

    return damage


def target(name: str, other: Any) -> Damage:
    """Another operator for a node."""

    def damage(module: fx.GraphModule) -> None:
        node(module, name).target = other

    return damage


def inserted(name: str, function: Any, *args: Any, **named: Any) -> Damage:
    """An operator behind a node, which all its readers read."""

    def damage(module: fx.GraphModule) -> None:
        found = node(module, name)
        with module.graph.inserting_after(found):
            new = module.graph.call_function(function, (found, *args), named)
        found.replace_all_uses_with(new, delete_user_cb=lambda user: user is not new)

    return damage


def reads(name: str, wrong: str, place: int = 0) -> Damage:
    """A node reads another value."""

    def damage(module: fx.GraphModule) -> None:
        found = node(module, name)
        found.args = tuple(node(module, wrong) if i == place else a for i, a in enumerate(found.args))

    return damage


def untied(module: fx.GraphModule) -> None:
    """The head gets a copy of the embedding's weight."""
    head = module.get_submodule("head")
    head.weight = nn.Parameter(head.weight.detach().clone())  # type: ignore[arg-type, unused-ignore]


def unscaled(name: str, units: int) -> Damage:
    """Every copy is read with the whole weight."""

    def damage(module: fx.GraphModule) -> None:
        weight = tensor(module, name)
        whole = weight[:, :units] + weight[:, units:]
        weight[:, :units], weight[:, units:] = whole, whole

    return damage


def times(factor: float) -> Callable[[torch.Tensor], object]:
    """Multiply by a factor, in place."""
    return lambda t: t.mul_(factor)


def add_at(index: Any, amount: float) -> Callable[[torch.Tensor], object]:
    """Add an amount at an index, in place."""
    return lambda t: t[index].add_(amount) if t[index].dim() else t.__setitem__(index, t[index] + amount)


def first_eight_in_order(value: torch.Tensor) -> torch.Tensor:
    """Eight positions laid out as four pairs and back, what is beyond them gone: zeros."""
    kept = value[..., :8].unflatten(-1, (4, 2)).flatten(-2)
    return F.pad(kept, (0, value.shape[-1] - kept.shape[-1]))


WIDE, SPLIT = ["widen(stem, extra=4)"], ["split(stem)"]
QK, VW, UP = ["widen(q:head_width, extra=2)"], ["widen(v:value_width, extra=2)"], ["widen(up:0, extra=3)"]
PATCH = ["widen(patch_embed, extra=8)"]
ANY = ["widen(stem, extra=2)"]
R, G, J, S, M = models.residual, models.groups, models.joined, models.stream, models.rms_stream

WRONG: dict[str, Wrong] = {
    # splits
    "an unscaled split": Wrong(R, SPLIT, unscaled("inner.weight", 8)),
    "one share off by a part in 10^5": Wrong(R, SPLIT, change("inner.weight", lambda t: t[0, 8].mul_(1 + 1e-5))),
    "noise on the incoming weights of copies": Wrong(R, SPLIT, change("stem.weight", add_at((8, 0, 1, 1), 1e-5))),
    "a forgotten bias of the copies": Wrong(R, SPLIT, change("stem.bias", lambda t: t[8:].zero_())),
    "copies without their norm's weight": Wrong(R, SPLIT, change("norm.weight", lambda t: t[8:].fill_(1))),
    "copies without their running mean": Wrong(R, SPLIT, change("norm.running_mean", lambda t: t[8:].zero_())),
    "copies without their running variance": Wrong(R, SPLIT, change("norm.running_var", lambda t: t[8:].fill_(1))),
    "shares laid out in turns": Wrong(R, SPLIT, swapped("inner.weight", 1, [i // 2 + 8 * (i % 2) for i in range(16)])),
    "copies whose slopes are the default": Wrong(R, SPLIT, change("slope.weight", lambda t: t[8:].fill_(0.25))),
    "a branch that writes only the first copies": Wrong(R, SPLIT, change("outer.weight", lambda t: t[8:].zero_())),
    "a head that reads the copies' positions in turns": Wrong(
        R, SPLIT, change("head.weight", lambda t: t.copy_(t.view(5, 2, 8, 16).transpose(1, 2).reshape(5, 256)))
    ),
    "whole groups tiled as channels": Wrong(G, ["split(stem:group_width)"], rolled("grouped.weight", 1)),
    "copies of attention heads with a whole output": Wrong(S, ["split(q:heads)"], unscaled("out.weight", 8)),
    "copies of value channels with a whole output": Wrong(
        S, ["split(v:value_width)"], change("out.weight", times(1.5))
    ),
    # widening
    "new units read with a weight that is not zero": Wrong(R, WIDE, change("inner.weight", add_at((0, 8, 1, 1), 1e-4))),
    "new units that reach the residual stream": Wrong(R, WIDE, change("head.weight", lambda t: t[:, -16:].fill_(1e-3))),
    "a shifted flatten order": Wrong(R, WIDE, rolled("head.weight", 1)),
    "a flatten order with the channels last": Wrong(
        R, WIDE, change("head.weight", lambda t: t.copy_(t.view(5, 12, 16).transpose(1, 2).reshape(5, 192)))
    ),
    "new units in front of the old ones": Wrong(R, WIDE, rolled("inner.weight", 1, 4)),
    "a reader's bias that was drawn anew": Wrong(R, ["widen(inner, extra=3)"], change("outer.bias", add_at(0, 1e-4))),
    "a wrong concat offset": Wrong(J, ["widen(first, extra=2)"], rolled("mix.weight", 1, -2)),
    "a concatenation in the other order": Wrong(
        J, ["widen(mix, extra=3)"], arguments("cat", lambda a: (a[0][::-1], a[1]))
    ),
    "a group norm with its groups of before": Wrong(
        G, ["widen(stem:groups, extra=1)"], attribute("norm", "num_groups", 2)
    ),
    "a group norm that mixes groups": Wrong(
        G, ["widen(grouped:group_width, extra=3)"], attribute("norm", "num_groups", 4)
    ),
    "groups of a convolution out of step": Wrong(
        G, ["widen(grouped:group_width, extra=3)"], swapped("depthwise.weight", 0, [*range(1, 18), 0])
    ),
    "attention with its default scale": Wrong(
        S, QK, arguments("scaled_dot_product_attention", lambda a: a, scale=None)
    ),
    "heads that are swapped behind attention": Wrong(S, VW, rolled("out.weight", 1, 6)),
    "new head channels that are not closed": Wrong(
        S, QK, lambda m: [tensor(m, n)[4:6].fill_(0.1) for n in ("q.weight", "k.weight")]
    ),
    "value and gate that change places": Wrong(
        S, UP, together(arguments("getitem_8", lambda a: (a[0], 1)), arguments("getitem_9", lambda a: (a[0], 0)))
    ),
    "a gate that is cut one unit late": Wrong(S, UP, rolled("up.weight", 0)),
    # norms
    "a stale eps of a layer norm": Wrong(models.vit, PATCH, attribute("norm", "eps", 1e-5 * 1.5)),
    "a layer norm whose weight was not rescaled": Wrong(models.vit, PATCH, change("norm.weight", times(2**0.5))),
    "a mean that is not one": Wrong(models.vit, PATCH, change("patch_embed.bias", add_at(-1, 1e-2))),
    "position embeddings that are not filled with means": Wrong(
        models.vit, PATCH, change("pos_embed", lambda t: t[..., 8:].zero_())
    ),
    "a stale eps of an RMS norm": Wrong(M, ["widen(positions:axis2, extra=4)"], attribute("norm1", "eps", 1e-3)),
    "an RMS norm whose weight was not rescaled": Wrong(
        M, ["widen(positions:axis2, extra=4)"], change("norm2.weight", times(1.5**0.5))
    ),
    "an embedding with new columns that are not zero": Wrong(
        M, ["widen(positions:axis2, extra=4)"], change("embed.weight", lambda t: t[:, 8:].fill_(1e-3))
    ),
    "another momentum of a batch norm": Wrong(R, WIDE, attribute("norm", "momentum", 0.2)),
    "another eps of a batch norm": Wrong(R, WIDE, attribute("inner_norm", "eps", 1e-4)),
    "a batch norm that counts its batches anew": Wrong(
        R, WIDE, change("norm.num_batches_tracked", lambda t: t.fill_(7))
    ),
    "a batch norm that keeps no statistics": Wrong(R, WIDE, attribute("inner_norm", "momentum", 0.0)),
    "a stale running variance": Wrong(R, WIDE, change("norm.running_var", add_at(0, 1e-4))),
    "an instance norm without its weight": Wrong(
        G, ["widen(stem:groups, extra=1)"], attribute("instance", "weight", None)
    ),
    "another eps of a group norm": Wrong(G, ["split(stem:groups)"], attribute("norm", "eps", 1e-4)),
    # blocks
    "an identity that is nearly one": Wrong(
        R,
        ["deepen(act, kind=identity)"],
        lambda m: next(p for n, p in m.named_parameters() if "act_deepen" in n and p.dim() == 4)[0, 0, 0, 0].add_(1e-5),
    ),
    "a closed block with a bias": Wrong(
        R,
        ["deepen(act, kind=conv)"],
        lambda m: [p.add_(1e-4) for n, p in m.named_parameters() if "act_deepen.conv2.bias" in n],
    ),
    "an open block": Wrong(
        R,
        ["deepen(act, kind=conv)"],
        lambda m: [p.add_(1e-4) for n, p in m.named_parameters() if "act_deepen.conv2" in n],
    ),
    "a gate that is ajar": Wrong(
        R,
        ["add-skip(:relu, target=slope)"],
        lambda m: [p.add_(1e-5) for n, p in m.named_parameters() if n.endswith("gate.gate")],
    ),
    "a gate on the wrong side": Wrong(J, ["add-branch(first, kind=conv)"], arguments("mul", lambda a: (a[1], a[1]))),
    "a branch behind which nothing is closed": Wrong(
        J,
        ["add-branch(first, kind=conv)"],
        lambda m: [p.add_(1e-3) for n, p in m.named_parameters() if "first_add_branch" in n],
    ),
    "a larger kernel off its centre": Wrong(R, ["enlarge-kernel(stem, to=5)"], rolled("stem.weight", 2)),
    "a larger kernel with the padding of before": Wrong(
        R, ["enlarge-kernel(stem, to=5)"], attribute("stem", "padding", (1, 1))
    ),
    "a larger kernel with a border that is not zero": Wrong(
        R, ["enlarge-kernel(inner, to=5)"], change("inner.weight", add_at((0, 0, 0, 0), 1e-4))
    ),
    "padding that reflects": Wrong(
        R,
        ["enlarge-kernel(stem, to=5)"],
        together(
            attribute("stem", "padding_mode", "reflect"),
            attribute("stem", "_reversed_padding_repeated_twice", [2, 2, 2, 2]),
        ),
    ),
    "an activation that is blended in too early": Wrong(
        R,
        ["swap-activation(act, to=gelu)"],
        lambda m: next(p for n, p in m.named_parameters() if n.endswith(".s")).fill_(1e-5),
    ),
    "an activation that was swapped at once": Wrong(
        R,
        ["swap-activation(act, to=gelu)"],
        lambda m: next(p for n, p in m.named_parameters() if n.endswith(".s")).fill_(1.0),
    ),
    # operators and edges
    "an activation with another slope": Wrong(R, WIDE, attribute("act", "negative_slope", 0.01)),
    "an approximate gelu": Wrong(S, UP, arguments("gelu", lambda a: a, approximate="tanh")),
    "a relu6 in the place of a relu": Wrong(R, WIDE, target("relu_1", F.relu6)),
    "a maximum in the place of a mean": Wrong(R, WIDE, replaced("pool", nn.MaxPool2d(3, 2, 1))),
    "a mean that does not count its padding": Wrong(R, WIDE, attribute("pool", "count_include_pad", False)),
    "a bilinear upsampling": Wrong(G, ["split(stem:groups)"], attribute("up", "mode", "bilinear")),
    "a residual that is subtracted": Wrong(R, WIDE, target("add", operator.sub)),
    "operands of a difference that change places": Wrong(S, UP, arguments("sub", lambda a: a[::-1])),
    "a skip that starts behind the norm": Wrong(R, WIDE, reads("add", "norm")),
    "a reader of the wrong token's state": Wrong(S, UP, inserted("add_1", torch.roll, 1, 1)),
    "attention that sees the future": Wrong(
        S, QK, arguments("scaled_dot_product_attention", lambda a: a, is_causal=False)
    ),
    "keys in the place of queries": Wrong(
        S, VW, arguments("scaled_dot_product_attention", lambda a: (a[1], a[0], *a[2:]))
    ),
    "heads and channels that change places in a view": Wrong(
        S, ["widen(q:heads, extra=1)"], arguments("view", lambda a: (*a[:-2], a[-1], a[-2]))
    ),
    "a square map that is transposed": Wrong(S, UP, change("square.weight", lambda t: t.copy_(t.t().clone()))),
    "a kernel that is flipped": Wrong(R, WIDE, change("inner.weight", lambda t: t.copy_(t.flip(2)))),
    "a bias that is added twice": Wrong(R, ["widen(inner, extra=3)"], change("outer.bias", times(2.0))),
    "a clamp that only large inputs reach": Wrong(G, ["split(stem:groups)"], inserted("head", torch.clamp, max=3.0)),
    "classes in another order": Wrong(R, WIDE, lambda m: [rolled("head.weight", 0)(m), rolled("head.bias", 0)(m)]),
    "an output in a tuple": Wrong(R, WIDE, lambda m: setattr(node(m, "output"), "args", ((node(m, "head"),),))),
    "an output of another dtype": Wrong(R, WIDE, inserted("head", torch.Tensor.to, torch.float64)),
    "an output that is rounded": Wrong(R, WIDE, inserted("head", torch.Tensor.to, torch.bfloat16)),
    # noise, ties, flags, gradients
    "dropout in train mode alone": Wrong(R, WIDE, inserted("relu_1", F.dropout, 0.1)),
    "another probability of dropout": Wrong(S, QK, attribute("drop", "p", 0.5)),
    "dropout that is gone": Wrong(S, QK, attribute("drop", "p", 0.0)),
    "a tied head that got a weight of its own": Wrong(S, UP, untied),
    "a parameter that no longer learns": Wrong(R, WIDE, lambda m: tensor(m, "outer.weight").requires_grad_(False)),
    "one parameter in another dtype": Wrong(
        S, UP, lambda m: setattr(m, "positions", nn.Parameter(tensor(m, "positions").double()))
    ),
    "a value cut off from its gradient": Wrong(
        R, WIDE, inserted("relu_1", torch.detach), ("eval", "train", "gradients")
    ),
    "new units with zeros on both sides": Wrong(
        R, ["widen(inner, extra=3)"], change("inner.weight", lambda t: t[6:].zero_()), ("eval", "alive")
    ),
}


# Right at the example's length of 8, and at no other.
AT_ONE_SIZE: dict[str, Wrong] = {
    "a pool over as many positions as the example has": Wrong(
        models.any_size,
        ANY,
        together(target("adaptive_avg_pool1d", F.avg_pool1d), arguments("adaptive_avg_pool1d", lambda a: (a[0], 8))),
    ),
    "a view whose length is written as a number": Wrong(
        models.any_size, ANY, arguments("view", lambda a: (a[0], a[1], 8, a[3]))
    ),
    "a flattened length that is written as a number": Wrong(
        models.any_size, ANY, arguments("mul", lambda a: (a[0], 8))
    ),
    "the last position as a number": Wrong(
        models.any_size, ANY, arguments("getitem_4", lambda a: (a[0], (slice(None), slice(None), 7)))
    ),
    "a position table that is cut at a number": Wrong(
        models.any_size, ANY, arguments("getitem_3", lambda a: (a[0], (slice(None), slice(None), slice(None, 8))))
    ),
    "a resizing to a number of positions": Wrong(
        models.any_size, ANY, arguments("interpolate", lambda a: a, size=8, scale_factor=None)
    ),
    "an order of positions that is an order of eight": Wrong(
        models.any_size, ANY, inserted("transpose_1", first_eight_in_order)
    ),
}
