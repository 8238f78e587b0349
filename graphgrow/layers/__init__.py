"""Small live modules and functions that a graph may hold beside those of torch, one file for each kind."""

from graphgrow.layers.assignment import set_item, store_
from graphgrow.layers.attention import ScaledDotProductAttention
from graphgrow.layers.choice import Choice
from graphgrow.layers.connections import Blend, Gate, Zeros
from graphgrow.layers.modes import ByMode, CopyInOneMode, OneMode
from graphgrow.layers.norm import RootMeanSquareNorm
from graphgrow.layers.own_function import OwnFunction
from graphgrow.layers.padded import Padded, PaddedGRU, PaddedLSTM, PaddedRNN
from graphgrow.layers.requirements import (
    CHECKS,
    form_of,
    require_admitted,
    require_decision,
    require_dtypes,
    require_form,
    require_same,
    require_sizes,
    require_values,
)
from graphgrow.layers.router import Router

__all__ = [
    "CHECKS",
    "Blend",
    "ByMode",
    "Choice",
    "CopyInOneMode",
    "Gate",
    "OneMode",
    "OwnFunction",
    "Padded",
    "PaddedGRU",
    "PaddedLSTM",
    "PaddedRNN",
    "RootMeanSquareNorm",
    "Router",
    "ScaledDotProductAttention",
    "Zeros",
    "form_of",
    "require_admitted",
    "require_decision",
    "require_dtypes",
    "require_form",
    "require_same",
    "require_sizes",
    "require_values",
    "set_item",
    "store_",
]
