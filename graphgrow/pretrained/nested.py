"""The numbers of a configuration by name, those of the configurations within it too: `text_config.vocab_size`."""

from __future__ import annotations

from typing import Any

LABELS = "num_labels"  # counts the names of the classes; no number of its own
_SUFFIX = "_config"


def parts_of(config: Any) -> dict[str, Any]:
    """A configuration and those that it holds, by what stands in front of the names of their numbers."""
    found = {"": config}
    for name, value in vars(config).items():
        if hasattr(value, "to_dict") and isinstance(getattr(value, "__dict__", None), dict):
            found |= {f"{name}.{prefix}": part for prefix, part in parts_of(value).items()}
    return found


def number(config: Any, name: str) -> Any:
    """What a configuration has under a name; 0 where it has nothing."""
    part, last = _owner(config, name)
    return getattr(part, last, 0)


def set_number(config: Any, name: str, value: float) -> None:
    """Put a number into a configuration, in place; the classes that there were keep their names.

    Raises:
        AttributeError: if it is worked out from others.
    """
    part, last = _owner(config, name)
    names = dict(getattr(part, "id2label", None) or {}) if last == LABELS else {}
    setattr(part, last, value)
    if names:
        part.id2label = {**part.id2label, **{place: text for place, text in names.items() if place < value}}
        part.label2id = {text: place for place, text in part.id2label.items()}


def numbers_in(config: Any) -> dict[str, float]:
    """The numbers of a configuration by name, those of the classes among them."""
    found: dict[str, float] = {}
    for prefix, part in parts_of(config).items():
        found |= {f"{prefix}{name}": value for name, value in vars(part).items() if type(value) in (int, float)}
        labels = getattr(part, LABELS, None)
        found |= {} if labels is None else {f"{prefix}{LABELS}": labels}
    return found


def part_for(config: Any, path: str) -> Any:
    """The configuration of the part of a model that has a path: `text_config` for `text_model.encoder.layers`.

    The whole one where none is called so.
    """
    steps = path.split(".")
    for prefix, part in parts_of(config).items():
        stem = prefix.rstrip(".").rpartition(".")[2].removesuffix(_SUFFIX)
        if stem and any(step.startswith(stem) for step in steps):
            return part
    return config


def _owner(config: Any, name: str) -> tuple[Any, str]:
    *within, last = name.split(".")
    for step in within:
        config = getattr(config, step)
    return config, last
