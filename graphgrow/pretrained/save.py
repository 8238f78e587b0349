"""gg.save_pretrained: a grown Hugging Face model as a checkpoint that plain transformers loads."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from graphgrow.errors import ExportError
from graphgrow.network.network import Network
from graphgrow.pretrained.config import Apart
from graphgrow.pretrained.fit import Fit
from graphgrow.pretrained.names import Renaming, tensors_of

ULPS = 16.0  # of the largest output: the same operators in the same order round nearly alike
_ADVICE = (
    "its growth is not uniform over the layers, or not one that its class can have; gg.save keeps any, and gg.to_model "
    "what the class computes"
)


def save_pretrained(network: Network, model: nn.Module, folder: str | Path) -> Path:
    """Write a grown model as a checkpoint of its base's class, with its configuration updated.

    Layers, widths, heads, vocabulary and labels are counted from the grown shapes. The checkpoint's model is built,
    filled, and compared with the grown one in its own dtype before anything is written.

    Args:
        network: the grown graph.
        model: what it was captured from: a model with a `config` that its class is built from, and `save_pretrained`.
        folder: where it goes.

    Returns:
        The folder.

    Raises:
        ExportError: if no configuration of the class has these shapes, or its model answers otherwise.
    """
    config: Any = getattr(model, "config", None)
    if config is None or not hasattr(model, "save_pretrained"):
        raise ExportError(
            f"{type(model).__name__} has no `config` and `save_pretrained`; for other models there are gg.save and "
            "gg.export_source"
        )
    renaming = Renaming.of(network.module, model)
    tensors = tensors_of(network.module, renaming)
    build = type(model)
    fit = Fit.of(network, model, renaming)
    if fit.apart is None or fit.apart:
        raise ExportError(f"no configuration of {build.__name__} fits: {_first(fit.apart)}; {_ADVICE}")
    _refuse_invalid(fit.config)
    fresh: Any = build(fit.config)
    _refuse_other_epsilons(fresh, fit.epsilons)
    fresh.load_state_dict(_state(fresh, tensors, model.state_dict()))
    fresh = fresh.to(next(model.parameters()).dtype).train(network.module.training)
    if getattr(model, "generation_config", None) is not None:
        fresh.generation_config = copy.deepcopy(model.generation_config)
    _compare(network, fresh)
    fresh.save_pretrained(folder)
    return Path(folder)


def _refuse_invalid(config: Any) -> None:
    """Ask the configuration itself, which a model can be built from though it cannot be saved.

    Raises:
        ExportError: with its words.
    """
    validate = getattr(config, "validate", None)
    if validate is None:
        return
    try:
        validate()
    except Exception as error:  # of a class of its library's
        reason = " ".join(str(error).split())
        raise ExportError(f"{type(config).__name__} refuses the grown sizes: {reason}; gg.save keeps any") from error


def _refuse_other_epsilons(fresh: nn.Module, epsilons: dict[str, float]) -> None:
    """A norm that grew has another eps, which a class may hold as a constant.

    Raises:
        ExportError: with the norm.
    """
    parts = dict(fresh.named_modules())
    for path, wanted in epsilons.items():
        found = getattr(parts.get(path), "eps", getattr(parts.get(path), "variance_epsilon", None))
        if isinstance(found, float) and abs(found - wanted) > 1e-9 * wanted:
            raise ExportError(f"the norm `{path}` has grown to eps {wanted:g}, and would have {found:g}; {_ADVICE}")


def _state(
    fresh: nn.Module, tensors: dict[str, torch.Tensor], before: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """The checkpoint's tensors: the grown ones, by each of their names, and those that no operator of the graph uses.

    Raises:
        ExportError: if one of the latter would have to grow too.
    """
    state = {}
    made_by_name = fresh.state_dict(keep_vars=True)
    tied = {id(made): tensors[name] for name, made in made_by_name.items() if name in tensors}
    for name, made in made_by_name.items():
        found = tensors.get(name, tied.get(id(made), before.get(name)))
        if found is None or found.shape != made.shape:
            raise ExportError(
                f"no operator of the graph uses `{name}`, so that it did not follow the growth to {tuple(made.shape)}; "
                "gg.save keeps any"
            )
        state[name] = found
    return state


def _first(apart: Apart | None) -> str:
    if apart is None:
        return "its class cannot be built from it"
    name, (made, wanted) = min(apart.items())
    return f"`{name}` is {wanted} in the grown model, and would be {made if made is not None else 'missing'}"


def _compare(network: Network, fresh: nn.Module) -> None:
    """Refuse a model that answers otherwise than the grown one.

    Raises:
        ExportError: with the output and by how much, or what the model raises.
    """
    mine, theirs = (copy.deepcopy(side).eval() for side in (network.module, fresh))
    for seed, batch in enumerate((None, 1)):
        args, kwargs = network.inputs.sample(seed, batch)
        with torch.no_grad():
            first = mine(*args, **kwargs)
            try:
                second = theirs(*args, **kwargs)
            except Exception as error:  # whatever the class raises
                words = " ".join(str(error).split())
                raise ExportError(f"the checkpoint's model does not run: {words:.200}; {_ADVICE}") from error
        pairs = list(zip(_floating(first), _floating(second), strict=False))
        if not pairs:
            raise ExportError("the model puts out no tensor of floating point to compare")
        for number, (a, b) in enumerate(pairs):
            limit = ULPS * torch.finfo(a.dtype).eps * float(a.abs().max())
            if a.shape != b.shape:
                raise ExportError(f"output {number} is {tuple(b.shape)} in the checkpoint, not {tuple(a.shape)}")
            if not bool(((a - b).abs() <= limit).all()):
                off = float((a - b).abs().max())
                raise ExportError(f"output {number} of the checkpoint's model is off by {off:.2g}; {_ADVICE}")


def _floating(outputs: Any) -> list[torch.Tensor]:
    return [t for t in pytree.tree_leaves(outputs) if isinstance(t, torch.Tensor) and t.is_floating_point()]
