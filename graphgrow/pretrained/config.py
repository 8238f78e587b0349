"""Which numbers of a configuration make a model of given shapes: found by building it without data."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from graphgrow.pretrained.names import Renaming
from graphgrow.pretrained.nested import number, numbers_in, part_for, parts_of, set_number

Shapes = Mapping[str, tuple[int, ...]]
Apart = dict[str, tuple[tuple[int, ...] | None, tuple[int, ...]]]
HEAD_WIDTH = "head_dim"
UNSURE = (HEAD_WIDTH, "d_kv", "kv_channels")  # more heads and wider ones have the same shapes; heads are what grows
LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
LAYERS_OF = {
    "decoder": ("decoder_layers", "num_decoder_layers"), "encoder": ("encoder_layers", "num_encoder_layers"),
}  # fmt: skip
SIZES = (
    "vocab_size", "hidden_size", "n_embd", "d_model", "dim", "intermediate_size", "n_inner", "hidden_dim", "d_ff",
    "ffn_dim", "encoder_ffn_dim", "decoder_ffn_dim", "num_attention_heads", "n_head", "n_heads", "num_heads",
    "encoder_attention_heads", "decoder_attention_heads", "num_key_value_heads", "head_dim", "max_position_embeddings",
    "max_source_positions", "max_target_positions", "n_positions", "num_labels", "type_vocab_size", "num_channels",
    "word_embed_proj_dim", "embedding_size", "projection_dim", "decoder_vocab_size", "num_kv_heads", "d_kv",
    "kv_channels", "ffn_hidden_size", "attention_heads", "moe_intermediate_size", "shared_expert_intermediate_size",
)  # fmt: skip
WIDTHS, HEADS = ("hidden_size", "n_embd", "d_model"), ("num_attention_heads", "n_head", "num_heads")
EPSILONS = ("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_eps", "norm_epsilon", "layernorm_epsilon")
MOST_CHANGES = 12


def fitting_config(build: Callable[[Any], nn.Module], config: Any, wanted: Shapes, epsilons: Collection[float]) -> Any:
    """A configuration whose model comes nearest to the wanted shapes; the caller looks at what still differs.

    Sizes are changed one after the other, as long as fewer tensors differ: an axis of s that is now s' proposes
    v s' / s for each size v that divides it; then, for an axis that packs several parts, each size v by as much as
    makes the axis s', going by what twice v makes of it.

    Args:
        build: makes a model of a configuration.
        config: of the base, with the layers counted that there are now; it is not changed.
        wanted: the shapes, by name.
        epsilons: of the norms, which growth changes with their width.
    """
    best = copy.deepcopy(config)
    if len(set(epsilons)) == 1:
        for name in _names(best, EPSILONS):
            if isinstance(number(best, name), float):
                set_number(best, name, next(iter(epsilons)))
    found = _nearest(build, best, wanted)
    pinned = _with_head_width(best) if differences(build, found, wanted) else None
    if pinned is not None and differences(build, again := _nearest(build, pinned, wanted), wanted) == {}:
        return again
    return found


def _with_head_width(config: Any) -> Any | None:
    """A configuration that says the width of a head, where it is worked out from others as long as none is given."""
    pinned = None
    for prefix, part in parts_of(config).items():
        width, heads = (next(filter(None, (getattr(part, n, 0) for n in names)), 0) for names in (WIDTHS, HEADS))
        of_all = type(width) is int and type(heads) is int  # else of each stage its own, as in Swin
        if getattr(part, HEAD_WIDTH, None) is None and of_all and width and heads and not width % heads:
            pinned = _changed(config if pinned is None else pinned, f"{prefix}{HEAD_WIDTH}", width // heads) or pinned
    return pinned


def _names(config: Any, among: Sequence[str]) -> list[str]:
    """Those names among some that a configuration has, or one within it."""
    return [f"{prefix}{name}" for prefix, part in parts_of(config).items() for name in among if hasattr(part, name)]


def _changed(config: Any, name: str, value: float) -> Any | None:
    """A copy of a configuration with another number; None where that one is worked out from others."""
    other = copy.deepcopy(config)
    try:
        set_number(other, name, value)
    except AttributeError:
        return None
    return other


def even_config(build: Callable[[Any], nn.Module], config: Any, wanted: Shapes, nearest: Any) -> Any:
    """A configuration with those numbers of the nearest one that are right by themselves, wherever they are read.

    Args:
        build: makes a model of a configuration.
        config: with the layers counted; it is not changed.
        wanted: the shapes, by name.
        nearest: what `fitting_config` found, which does not fit.
    """
    apart, even = differences(build, config, wanted), config
    for name, value in numbers_in(nearest).items():
        if numbers_in(config).get(name) == value or apart is None:
            continue
        trial = _changed(config, name, value)
        left = None if trial is None else differences(build, trial, wanted)
        if left is not None and left.items() < apart.items():
            even = _changed(even, name, value)
    return even


def _nearest(build: Callable[[Any], nn.Module], best: Any, wanted: Shapes) -> Any:
    """The configuration that one change after the other leads to."""
    apart = differences(build, best, wanted)
    for _ in range(MOST_CHANGES):
        if apart is None or not apart:
            return best
        proposals = _proposals(best, apart)
        sure = [proposal for proposal in proposals if proposal[0].rpartition(".")[2] not in UNSURE]
        found = _better(build, best, apart, wanted, sure) or _better(build, best, apart, wanted, proposals)
        found = found or _better(build, best, apart, wanted, _sums(build, best, apart, wanted))
        if found is None:
            return best
        best, apart = found
    return best


def _better(
    build: Callable[[Any], nn.Module], config: Any, apart: Apart, wanted: Shapes, proposals: Sequence[tuple[str, int]]
) -> tuple[Any, Apart] | None:
    """The one change after which the fewest tensors differ, fewer than now; None if there is none."""
    trials = []
    for name, value in proposals:
        trial = _changed(config, name, value)
        left = None if trial is None else differences(build, trial, wanted)
        if left is not None and len(left) < len(apart):
            trials.append((len(left), name, trial, left))
    if not trials:
        return None
    _, _, best, left = min(trials, key=lambda item: item[:2])
    return best, left


def differences(build: Callable[[Any], nn.Module], config: Any, wanted: Shapes) -> Apart | None:
    """By name of a parameter, its shape in the configuration's model and the one wanted, where they differ.

    Parameters that are not asked for may have any shape. None where the configuration makes no model: a size does not
    divide another, say.
    """
    try:
        with torch.device("meta"):
            named = build(config).named_parameters(remove_duplicate=False)
            made = {name: tuple(parameter.shape) for name, parameter in named}
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError):
        return None
    return {name: (made.get(name), shape) for name, shape in wanted.items() if made.get(name) != shape}


def count_layers(config: Any, renaming: Renaming) -> Any:
    """Count the layers that a model has now in its configuration, in place; lists with an item for each follow."""
    for path, children in renaming.grown().items():
        old, part = max(renaming.origins(path)) + 1, part_for(config, path)
        for name in _counts_of(part, path):
            if getattr(part, name) == old:
                for key, value in vars(part).items():
                    if isinstance(value, list) and len(value) == old:
                        setattr(part, key, [value[number] for number in renaming.origins(path)])
                setattr(part, name, len(children))
    return config


def _counts_of(config: Any, path: str) -> tuple[str, ...]:
    """The numbers of a configuration that may count the layers of a container: a side's own where it has one."""
    side = next((names for side, names in LAYERS_OF.items() if side in path.split(".")), ())
    own = tuple(name for name in side if hasattr(config, name))
    return own or tuple(name for name in LAYERS if hasattr(config, name))


def _proposals(config: Any, apart: Mapping[str, Any]) -> list[tuple[str, int]]:
    """Sizes that might explain an axis that differs."""
    pairs = {
        (mine, theirs)
        for made, wanted in apart.values()
        if made is not None and len(made) == len(wanted)
        for mine, theirs in zip(made, wanted, strict=True)
        if mine != theirs
    }
    found: dict[tuple[str, int], None] = {}
    for name in _names(config, SIZES):
        value = number(config, name)
        if value is None:  # worked out from others, as GPT-2's n_inner is, until it is given
            found.update(dict.fromkeys((name, theirs) for _, theirs in sorted(pairs)))
        if type(value) is not int or value <= 0:
            continue
        for mine, theirs in sorted(pairs):
            if mine % value == 0 and theirs % (mine // value) == 0:
                found[name, theirs // (mine // value)] = None
    return list(found)


def _sums(build: Callable[[Any], nn.Module], config: Any, apart: Apart, wanted: Shapes) -> list[tuple[str, int]]:
    """Sizes that might explain an axis to which they only contribute, as that of packed queries, keys and values."""
    found: dict[tuple[str, int], None] = {}
    for name in _names(config, SIZES):
        value = number(config, name)
        if type(value) is not int or value <= 0:
            continue
        trial = _changed(config, name, 2 * value)
        doubled = (None if trial is None else differences(build, trial, wanted)) or {}
        for tensor, (made, asked) in apart.items():
            after = doubled.get(tensor, (asked, asked))[0]
            for mine, then, theirs in zip(made or (), after or (), asked, strict=False):
                if then > mine and (theirs - mine) * value % (then - mine) == 0:
                    found[name, value + (theirs - mine) * value // (then - mine)] = None
    return [(name, value) for name, value in found if value > 0]
