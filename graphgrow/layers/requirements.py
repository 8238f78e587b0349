"""What a graph refuses at a call: inputs, sizes, dtypes and decisions other than those that it holds for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx


@fx.node.has_side_effect  # so that a node without readers stays
def require_same(value: Any, captured: Any, name: str) -> None:
    """Refuse a call with another value of an input that the graph was specialised to.

    Raises:
        ValueError: if the value is not the one of the capture.
    """
    same = value is captured if captured is None or isinstance(value, torch.Tensor) else value == captured
    if not same:
        raise ValueError(
            f"the graph was captured with {name}={captured!r} and holds for that alone, not for {value!r:.60}; "
            "capture it again with example inputs that have the new value"
        )


@fx.node.has_side_effect
def require_decision(value: Any, decided: Any, line: str) -> None:
    """Refuse a call with sizes by which the model would decide otherwise than it did on the example inputs.

    Raises:
        ValueError: if what it decides by is another.
    """
    if value != decided:
        raise ValueError(
            f"at {line} the model decides by the sizes of its inputs: the graph holds where that gives {decided!r}, "
            f"not {value!r}; capture it again with example inputs of the new sizes"
        )


@fx.node.has_side_effect
def require_values(value: torch.Tensor, decided: Any, line: str) -> None:
    """Refuse a call in which the model would decide otherwise by a value that its inputs have no part in.

    Such a value is made of sizes, of constants and of buffers that the forward does not write.

    Args:
        value: what it decides by.
        decided: its numbers at the capture, as `tolist()` gives them.
        line: where it decides.

    Raises:
        ValueError: if the numbers are others.
    """
    if _can_be_read(value) and value.tolist() != decided:
        raise ValueError(
            f"at {line} the model decides by a value that it makes of sizes and buffers: the graph holds where that "
            f"is {decided!r}, not {value.tolist()!r:.60}; capture it again as it is now"
        )


@fx.node.has_side_effect
def require_admitted(value: torch.Tensor | float, admitted: bool, line: str, refusal: str) -> None:
    """Refuse the values that the model itself refuses, by a condition behind which its forward raises an error.

    Args:
        value: the condition, or a number that it asks for the truth of.
        admitted: its truth for the values that the model goes on with.
        line: where the condition stands.
        refusal: the error that the model raises, in words.

    Raises:
        ValueError: if the truth is the other.
    """
    if _can_be_read(value) and bool(value) is not admitted:
        raise ValueError(f"at {line} the model refuses such values: {refusal}")


def _can_be_read(value: torch.Tensor | float) -> bool:
    """Not where shapes alone are worked out, nor in an export, whose program has no place for an error."""
    return not (isinstance(value, torch.Tensor) and value.is_meta) and not torch.compiler.is_exporting()


@fx.node.has_side_effect
def require_dtypes(value: Any, decided: Any, line: str) -> None:
    """Refuse a call with dtypes by which the model would decide otherwise than it did on the example inputs.

    Under `torch.autocast`, where the dtypes of values are those of their operators, the graph goes the example's way.

    Args:
        value: what it decides by.
        decided: what that was on the example; as a list, all that it may be.
        line: where it decides.

    Raises:
        ValueError: if what it decides by is another.
    """
    autocast = any(map(torch.is_autocast_enabled, ("cpu", "cuda", "mps", "xpu")))
    admitted = decided if isinstance(decided, list) else [decided]
    if value not in admitted and not autocast:
        known = " or ".join(map(_in_words, admitted))
        raise ValueError(
            f"at {line} the model decides by the dtypes of its tensors: the graph holds where that gives {known}, "
            f"not {_in_words(value)}; capture it again with the model and its example inputs in the new dtype"
        )


def _in_words(value: Any) -> str:
    """A value in one piece where all of its parts are one."""
    return repr(value[0]) if isinstance(value, tuple) and len(set(value)) == 1 else repr(value)


def form_of(value: Any) -> str:
    """The form of an input as text: containers and objects with `*` for each tensor, all else as it prints."""
    if isinstance(value, torch.Tensor):
        return "*"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = ((field.name, getattr(value, field.name)) for field in dataclasses.fields(value))
        return f"{type(value).__name__}({', '.join(f'{name}={form_of(item)}' for name, item in fields)})"
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        pairs = zip(value._fields, value, strict=True)
        return f"{type(value).__name__}({', '.join(f'{name}={form_of(item)}' for name, item in pairs)})"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key!r}: {form_of(item)}' for key, item in value.items())}}}"
    if isinstance(value, (list, tuple)):
        inner = ", ".join(map(form_of, value))
        return f"[{inner}]" if isinstance(value, list) else f"({inner})"
    return repr(value)


def besides(value: Mapping[str, Any], assumed: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword inputs without those that have the values assumed."""
    return {key: item for key, item in value.items() if key not in assumed or item is not assumed[key]}


@fx.node.has_side_effect
def require_form(value: Any, form: str, name: str, assumed: Mapping[str, Any] | None = None) -> None:
    """Refuse a call with an input of another form than that of the capture: other keys, lengths, flags or numbers.

    Args:
        value: the input.
        form: of the capture, as `form_of` writes it, without what is assumed.
        name: of the input.
        assumed: of further keyword inputs, those that a call may leave out or give with the same value.

    Raises:
        ValueError: if the form is another.
    """
    found = form_of(value if assumed is None else besides(value, assumed))
    if found != form:
        raise ValueError(
            f"the graph holds for {name} of the form {form:.200}, not {found:.200}; capture it again with example "
            "inputs of the new form"
        )


@fx.node.has_side_effect
def require_sizes(value: torch.Tensor, sizes: tuple[int | None, ...], name: str) -> None:
    """Refuse a call with other sizes than those that the graph holds for; None is any size.

    Raises:
        ValueError: if the shape is another.
    """
    fits = value.dim() == len(sizes) and all(w is None or w == n for w, n in zip(sizes, value.shape, strict=True))
    if not fits:
        wanted = ", ".join("any" if size is None else str(size) for size in sizes)
        raise ValueError(
            f"the graph holds for {name} of shape ({wanted}), not {tuple(value.shape)}; capture it again with example "
            "inputs of the new sizes"
        )


CHECKS = frozenset(
    (
        torch._assert, require_admitted, require_decision, require_dtypes, require_form, require_same, require_sizes,
        require_values,
    )
)  # fmt: skip
"""What refuses a call: it computes nothing that anyone reads."""
