"""Caches of past keys and values: objects that a model hands out beside its answer, and no graph can hold."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from graphgrow.capture.model.outputs import keeps_state

USE_CACHE = "use_cache"
"""The input by which the models of transformers are asked for a cache (`PreTrainedModel`)."""
WITHOUT = {USE_CACHE: False}
_NOTE = "its cache of past keys and values is left out: the graph holds for use_cache=False"


def left_out(model: nn.Module, kwargs: Mapping[str, Any], answer: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What to call a model with besides, so that it makes no cache: `WITHOUT`, or nothing; and a note of it.

    Args:
        model: the model.
        kwargs: the example inputs by name; one that says whether to make a cache is kept.
        answer: what the model answers them with.
    """
    if USE_CACHE in kwargs or not keeps_state(answer) or not _takes(model, USE_CACHE):
        return {}, ()
    return dict(WITHOUT), (_NOTE,)


def _takes(model: nn.Module, name: str) -> bool:
    parameters = inspect.signature(model.forward).parameters
    return name in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())
