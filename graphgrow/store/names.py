"""Models by name: `graphgrow:resnet`, `torchvision:resnet18`, `timm:resnet18`, `package.module:factory`."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from types import ModuleType
from typing import Any

import torch
from torch import nn

from graphgrow.capture.model.running import place_of
from graphgrow.errors import ModelError, did_you_mean

KNOWN_SOURCES = ("graphgrow", "torchvision", "timm")
_IMAGE_SIZES = {"inception_v3": 299}
_VIDEO_SIZES = {"mvit": 224, "s3d": 224}


Example = tuple[tuple[Any, ...] | None, dict[str, Any]]
"""Inputs by position, None for a model that is given alone, and by keyword."""


def build(name: str, **options: Any) -> tuple[nn.Module, tuple[Any, ...] | None, dict[str, Any]]:
    """A model by name, freshly initialised, with example inputs.

    Args:
        name: `graphgrow:NAME` (a reference model), `torchvision:NAME`, `timm:NAME`, or `package.module:factory`.
            Nothing is downloaded: weights are random. A factory may return its example inputs beside the model, those
            by position, or those and a dictionary of those by keyword.
        options: keywords of the model's factory; the example inputs are those of the defaults.

    Returns:
        The model, its example inputs (None for a factory that returns a model alone), and those by keyword.

    Raises:
        ModelError: if there is no such model, it takes no such options, or the factory does not return a module.
    """
    source, colon, rest = name.partition(":")
    if not colon or not rest:
        raise ModelError(
            f"{name!r} is no model: give graphgrow:NAME, torchvision:NAME, timm:NAME, package.module:factory or a "
            "saved folder"
        )
    named = {"graphgrow": _reference, "torchvision": _torchvision, "timm": _timm}
    if source in named:
        return (*named[source](rest, options), {})
    model, (args, kwargs) = _factory(source, rest, options)
    return model, args, kwargs


def _reference(name: str, chosen: Mapping[str, Any]) -> tuple[nn.Module, tuple[Any, ...]]:
    from graphgrow.models import MODELS

    if name not in MODELS:
        hint = did_you_mean(name, MODELS, f"there are {', '.join(MODELS)}")
        raise ModelError(f"there is no graphgrow:{name}; {hint}")
    entry = MODELS[name]
    return _made(f"graphgrow:{name}", entry.factory, chosen), entry.example()


def _torchvision(name: str, chosen: Mapping[str, Any]) -> tuple[nn.Module, tuple[Any, ...]]:
    models = import_torchvision().models
    if name not in models.list_models():
        hint = did_you_mean(name, models.list_models(), "see torchvision.models.list_models()")
        raise ModelError(f"there is no torchvision:{name}; {hint}")
    options: dict[str, Any] = {"weights": None, **chosen}
    if models.get_model_builder(name).__module__.startswith("torchvision.models.segmentation"):
        options["weights_backbone"] = None
    model: nn.Module = _made(f"torchvision:{name}", partial(models.get_model, name), options)
    return model, _images(name, type(model).__module__)


def _images(name: str, module: str) -> tuple[torch.Tensor, ...]:
    """Two images, videos, or pairs of frames, as a model of torchvision takes them."""
    generator = torch.Generator().manual_seed(0)
    if ".optical_flow" in module:
        first, second = (torch.randn(2, 3, 128, 128, generator=generator) for _ in range(2))
        return first, second
    size = _IMAGE_SIZES.get(name, 224)
    if ".video" in module:
        size = next((size for start, size in _VIDEO_SIZES.items() if name.startswith(start)), 112)
        return (torch.randn(2, 3, 16, size, size, generator=generator),)
    return (torch.randn(2, 3, size, size, generator=generator),)


def _timm(name: str, chosen: Mapping[str, Any]) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    import_torchvision()  # timm imports it, and would stumble where its operators do not load
    try:
        timm = importlib.import_module("timm")
    except ImportError as error:
        raise ModelError("timm is not installed: pip install 'graphgrow[zoo]'") from error
    if not timm.is_model(name):
        hint = did_you_mean(name, timm.list_models(), "see timm.list_models()")
        raise ModelError(f"there is no timm:{name}; {hint}")
    model: Any = _made(f"timm:{name}", partial(timm.create_model, name, pretrained=False), chosen)
    shape = (2, *model.pretrained_cfg["input_size"])
    return model, (torch.randn(shape, generator=torch.Generator().manual_seed(0)),)


def import_torchvision() -> ModuleType:
    """torchvision, also beside a torch that its compiled operators were not built for.

    There its import fails on two operators that it describes but could not load; their schemas are enough to use
    the models, which do not call them.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "does not exist" not in str(error):
            raise ModelError(f"torchvision cannot be imported: {error}") from error
    except ImportError as error:
        raise ModelError("torchvision is not installed: pip install torchvision") from error
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for operator in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, operator):
            schema = f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            library.define(schema)  # type: ignore[no-untyped-call]
    _LIBRARIES.append(library)  # a library's definitions live only as long as it does
    return importlib.import_module("torchvision")


_LIBRARIES: list[torch.library.Library] = []


def _factory(module_name: str, attribute: str, chosen: Mapping[str, Any]) -> tuple[nn.Module, Example]:
    """A model of a user's own, with its example inputs where the factory returns (model, inputs[, keywords])."""
    name = f"{module_name}:{attribute}"
    try:
        factory = getattr(importlib.import_module(module_name), attribute)
    except ImportError as error:
        raise ModelError(
            f"cannot import {module_name!r}: {error}; is its folder the current one, or on PYTHONPATH?"
        ) from error
    except AttributeError as error:
        raise ModelError(f"{module_name!r} has no {attribute!r}") from error
    if isinstance(factory, nn.Module):
        return factory, (None, {})
    if not callable(factory):
        raise ModelError(f"{name} is {type(factory).__name__}, wanted a module or a function that returns one")
    try:
        made = _made(name, factory, chosen)
    except ModelError:
        raise
    except Exception as error:  # whatever a user's own code raises, with its place
        raise ModelError(f"{name} fails: {type(error).__name__}: {error}{place_of(error)}") from error
    parts: list[Any] = [*made] if isinstance(made, tuple) and 1 <= len(made) <= 3 else [made]
    model, example, named = parts + [None, {}][len(parts) - 1 :]
    if not isinstance(model, nn.Module) or not isinstance(named, dict):
        raise ModelError(
            f"{name} returns {type(made).__name__}, wanted an nn.Module, or one with its example inputs: a tensor or a "
            "tuple, and then a dict of those by keyword"
        )
    return model, ((example,) if isinstance(example, torch.Tensor) else example, named)


def _made(name: str, factory: Callable[..., Any], chosen: Mapping[str, Any]) -> Any:
    try:
        return factory(**chosen)
    except TypeError as error:
        if not chosen:
            raise
        taken = ", ".join(inspect.signature(factory).parameters)
        raise ModelError(f"{name} cannot be made with {', '.join(chosen)}: {error}; it takes {taken}") from error
