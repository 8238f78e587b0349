"""Which models a family stands for."""

from __future__ import annotations

import math
from types import ModuleType

from graphgrow.errors import ModelError
from graphgrow.store.names import import_torchvision
from tools.sweep import home_made, small_timm, small_transformers

OWN, TORCHVISION = "graphgrow", "torchvision"
DETECTION = "detection"
PLAIN = "classification"  # torchvision's classifiers lie in no folder of their own


def chosen(models: list[str], families: list[str]) -> list[str]:
    """The models named, and those of the families, each once.

    Raises:
        ModelError: if a family is unknown.
    """
    names = [*models, *(name for family in families for name in family_models(family))]
    return list(dict.fromkeys(names))


def family_models(family: str) -> list[str]:
    """Every model of `graphgrow`, `home-made`, `transformers` and `torchvision`, one of each family of `timm`.

    Args:
        family: one of those, `torchvision` without the detectors, which take a list of images; or, for the cheapest
            model of each file there, `classification` or a folder of torchvision.models (`segmentation`, ...).

    Raises:
        ModelError: if torchvision has no such folder, or is not installed.
    """
    if family == small_transformers.TRANSFORMERS:
        return [f"{family}:{name}" for name in small_transformers.FAMILIES]
    if family == home_made.HOME_MADE:
        return [f"{family}:{name}" for name in home_made.names()]
    if family == small_timm.TIMM:
        return [f"{family}:{name}" for name in small_timm.FAMILIES.values()]
    if family == OWN:
        from graphgrow.models import MODELS

        return [f"{OWN}:{name}" for name in MODELS]
    zoo = import_torchvision().models
    files: dict[tuple[str, str], list[str]] = {}
    for name in zoo.list_models():
        _, _, *folders, file = zoo.get_model_builder(name).__module__.split(".")
        files.setdefault((".".join(folders) or PLAIN, file), []).append(name)
    if family == TORCHVISION:
        return [f"{family}:{name}" for (folder, _), names in files.items() if folder != DETECTION for name in names]
    cheapest = [min(names, key=lambda n: _cost(zoo, n)) for (folder, _), names in files.items() if folder == family]
    if not cheapest:
        own = (OWN, TORCHVISION, home_made.HOME_MADE, small_transformers.TRANSFORMERS, small_timm.TIMM)
        known = sorted({*own, *(f for f, _ in files)})
        raise ModelError(f"there is no family {family!r}; there are {', '.join(known)}")
    return [f"torchvision:{name}" for name in sorted(cheapest)]


def _cost(zoo: ModuleType, name: str) -> tuple[float, float]:
    """GFLOPs of one image, then parameters, as torchvision's weights state them; nothing is downloaded."""
    return min((cost_of(entry.meta) for entry in zoo.get_model_weights(name)), default=(math.inf, math.inf))


def cost_of(meta: dict[str, object]) -> tuple[float, float]:
    """What the metadata of weights say of their cost; what is missing counts as endless."""
    operations, parameters = (meta.get(key) for key in ("_ops", "num_params"))
    return (
        float(operations) if isinstance(operations, (int, float)) else math.inf,
        float(parameters) if isinstance(parameters, int) else math.inf,
    )
