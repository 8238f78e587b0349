"""Data by name."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from graphgrow.data.digits import digits
from graphgrow.data.folders import CLASSES, image_folder, torchvision_data
from graphgrow.data.parts import Data
from graphgrow.data.patterns import patterns
from graphgrow.data.text import text
from graphgrow.errors import DataError

_SOURCES: dict[str, Callable[..., Data]] = {
    "digits": digits,
    "patterns": patterns,
    "text": text,
    "folder": image_folder,
    **{name: partial(torchvision_data, name) for name in CLASSES},
}
_IN_FOLDERS = {"folder", *CLASSES}


def load_data(name: str, root: str | None = None, **options: Any) -> Data:
    """Data by name.

    Args:
        name: "digits", "patterns" (generated, CIFAR's shape), "text", a data set of torchvision in a folder, "folder"
            for images in one folder for each class, or `package.module:function`, which returns a `Data`.
        root: that folder.
        options: of the source.

    Raises:
        DataError: if the name or an option is unknown, or the data are not there.
    """
    source = _SOURCES[name] if name in _SOURCES else _named(name)
    if name in _IN_FOLDERS:
        options = {"root": root, **options}
    try:
        inspect.signature(source).bind(**options)
    except TypeError as error:
        raise DataError(f"the data {name!r} do not take these options: {error}") from None
    data = source(**options)
    if not isinstance(data, Data):
        raise DataError(f"{name} returns a {type(data).__name__}, wanted a graphgrow.data.parts.Data")
    return data


def _named(name: str) -> Callable[..., Data]:
    """The function of `package.module:function`."""
    module, colon, function = name.partition(":")
    if not colon:
        raise DataError(f"there is no data {name!r}; there are {', '.join(_SOURCES)}, or give package.module:function")
    try:
        found: Callable[..., Data] = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise DataError(
            f"cannot get the data {name}: {error}; is its folder the current one, or on PYTHONPATH?"
        ) from error
    return found
