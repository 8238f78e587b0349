"""Models by name: `graphgrow:resnet`, `torchvision:resnet18`, `package.module:factory`."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Mapping
from functools import partial
from types import ModuleType
from typing import Any

import torch
from torch import nn

from graphgrow.errors import ModelError

KNOWN_SOURCES = ("graphgrow", "torchvision")
_IMAGE_SIZES = {"inception_v3": 299}


def build(name: str, **options: Any) -> tuple[nn.Module, tuple[Any, ...] | None]:
    """A model by name, freshly initialised, with example inputs.

    Args:
        name: `graphgrow:NAME` (a reference model), `torchvision:NAME`, or `package.module:factory`.
        options: keywords of the model's factory; the example inputs are those of the defaults.

    Returns:
        The model, and its example inputs (None for a factory, whose inputs only its author knows).

    Raises:
        ModelError: if there is no such model, it takes no such options, or the factory does not return a module.
    """
    source, colon, rest = name.partition(":")
    if not colon or not rest:
        raise ModelError(
            f"{name!r} is no model: give graphgrow:NAME, torchvision:NAME, package.module:factory or a saved folder"
        )
    if source == "graphgrow":
        return _reference(rest, options)
    return _torchvision(rest, options) if source == "torchvision" else (_factory(source, rest, options), None)


def _reference(name: str, chosen: Mapping[str, Any]) -> tuple[nn.Module, tuple[Any, ...]]:
    from graphgrow.models import MODELS

    if name not in MODELS:
        raise ModelError(f"there is no graphgrow:{name}; there are {', '.join(MODELS)}")
    entry = MODELS[name]
    return _made(f"graphgrow:{name}", entry.factory, chosen), entry.example()


def _torchvision(name: str, chosen: Mapping[str, Any]) -> tuple[nn.Module, tuple[Any, ...]]:
    models = import_torchvision().models
    if name not in models.list_models():
        close = difflib.get_close_matches(name, models.list_models(), 3)
        raise ModelError(f"there is no torchvision:{name}" + (f"; did you mean {', '.join(close)}?" if close else ""))
    options: dict[str, Any] = {"weights": None, **chosen}
    if models.get_model_builder(name).__module__.startswith("torchvision.models.segmentation"):
        options["weights_backbone"] = None
    model: nn.Module = _made(f"torchvision:{name}", partial(models.get_model, name), options)
    size = _IMAGE_SIZES.get(name, 224)
    video = ".video." in type(model).__module__
    shape = (2, 3, 16, 112, 112) if video else (2, 3, size, size)
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


def _factory(module_name: str, attribute: str, chosen: Mapping[str, Any]) -> nn.Module:
    try:
        factory = getattr(importlib.import_module(module_name), attribute)
    except ImportError as error:
        raise ModelError(f"cannot import {module_name!r}: {error}; is its folder on PYTHONPATH?") from error
    except AttributeError as error:
        raise ModelError(f"{module_name!r} has no {attribute!r}") from error
    model = factory if isinstance(factory, nn.Module) else _made(f"{module_name}:{attribute}", factory, chosen)
    if not isinstance(model, nn.Module):
        raise ModelError(f"{module_name}:{attribute} returns {type(model).__name__}, not an nn.Module")
    return model


def _made(name: str, factory: Callable[..., Any], chosen: Mapping[str, Any]) -> Any:
    try:
        return factory(**chosen)
    except TypeError as error:
        if not chosen:
            raise
        raise ModelError(f"{name} cannot be made with {', '.join(chosen)}: {error}") from error
