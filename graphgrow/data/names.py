"""Data by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from graphgrow.data.digits import digits
from graphgrow.data.folders import CLASSES, torchvision_data
from graphgrow.data.parts import Data
from graphgrow.data.patterns import patterns
from graphgrow.data.text import text
from graphgrow.errors import TrainingError

_SOURCES: dict[str, Callable[..., Data]] = {
    "digits": digits,
    "patterns": patterns,
    "text": text,
    **{name: partial(torchvision_data, name) for name in CLASSES},
}


def load_data(name: str, root: str | None = None, **options: Any) -> Data:
    """Data by name.

    Args:
        name: "digits", "patterns" (generated, CIFAR's shape), "text", or a data set of torchvision in a folder.
        root: that folder.
        options: of the source.

    Raises:
        TrainingError: if the name or an option is unknown, or the data are not there.
    """
    if name not in _SOURCES:
        raise TrainingError(f"there is no data {name!r}; there are {', '.join(_SOURCES)}")
    if name in CLASSES:
        options = {"root": root, **options}
    try:
        inspect.signature(_SOURCES[name]).bind(**options)
    except TypeError as error:
        raise TrainingError(f"the data {name!r} do not take these options: {error}") from None
    return _SOURCES[name](**options)
