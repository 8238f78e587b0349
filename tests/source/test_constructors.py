"""Modules become the constructor calls that a person would write; what no call makes again is refused."""

from __future__ import annotations

import ast

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from graphgrow.errors import ExportError
from graphgrow.layers import ScaledDotProductAttention
from graphgrow.source.constructors import constructor
from graphgrow.source.imports import Imports
from graphgrow.source.layout import one_line


def written(module: nn.Module) -> str:
    return one_line(constructor(module, "part", Imports()))


# Wanted texts by hand; each is also what the module was made by, up to defaults.
CALLS: list[tuple[nn.Module, str]] = [
    (nn.Linear(3, 4), "nn.Linear(3, 4)"),
    (nn.Linear(3, 4, bias=False), "nn.Linear(3, 4, bias=False)"),
    (
        nn.Conv2d(16, 32, 3, padding=1, bias=False),
        "nn.Conv2d(16, 32, kernel_size=(3, 3), padding=(1, 1), bias=False)",
    ),
    (
        nn.Conv1d(4, 8, 3, padding="same", groups=2, padding_mode="reflect"),
        'nn.Conv1d(4, 8, kernel_size=(3,), padding="same", groups=2, padding_mode="reflect")',
    ),
    (
        nn.ConvTranspose2d(3, 4, 2, stride=2, output_padding=1),
        "nn.ConvTranspose2d(3, 4, kernel_size=(2, 2), stride=(2, 2), output_padding=(1, 1))",
    ),
    (nn.BatchNorm2d(3), "nn.BatchNorm2d(3)"),
    (nn.BatchNorm2d(3, affine=False), "nn.BatchNorm2d(3, affine=False)"),
    (
        nn.BatchNorm1d(3, eps=0.5, momentum=None, track_running_stats=False),
        "nn.BatchNorm1d(3, eps=0.5, momentum=None, track_running_stats=False)",
    ),
    (nn.LayerNorm(4, eps=1e-6), "nn.LayerNorm((4,), eps=1e-06)"),
    (nn.LayerNorm(4, bias=False), "nn.LayerNorm((4,), bias=False)"),
    (nn.LayerNorm(4, elementwise_affine=False), "nn.LayerNorm((4,), elementwise_affine=False)"),
    (nn.GroupNorm(2, 4), "nn.GroupNorm(2, 4)"),
    (nn.ReLU(inplace=True), "nn.ReLU(inplace=True)"),
    (nn.Softmax(dim=-1), "nn.Softmax(dim=-1)"),
    (nn.PReLU(3), "nn.PReLU(num_parameters=3)"),
    (nn.Identity(), "nn.Identity()"),
    (nn.MaxPool2d(3, 3), "nn.MaxPool2d(kernel_size=3)"),
    (nn.MaxPool2d(3, 2, 1), "nn.MaxPool2d(kernel_size=3, stride=2, padding=1)"),
    (nn.AdaptiveAvgPool2d((1, None)), "nn.AdaptiveAvgPool2d((1, None))"),
    (nn.Embedding(5, 4, padding_idx=0), "nn.Embedding(5, 4, padding_idx=0)"),
    (
        nn.LSTM(3, 4, 2, batch_first=True, dropout=0.1, bidirectional=True),
        "nn.LSTM(3, 4, num_layers=2, batch_first=True, dropout=0.1, bidirectional=True)",
    ),
    (nn.RNN(3, 4, nonlinearity="relu"), 'nn.RNN(3, 4, nonlinearity="relu")'),
    (nn.GRUCell(3, 4, bias=False), "nn.GRUCell(3, 4, bias=False)"),
    (
        nn.MultiheadAttention(8, 2, bias=False, add_bias_kv=True, kdim=4, batch_first=True),
        "nn.MultiheadAttention(8, 2, bias=False, add_bias_kv=True, kdim=4, batch_first=True)",
    ),
    (nn.Sequential(nn.Linear(3, 4), nn.Tanh()), "nn.Sequential(nn.Linear(3, 4), nn.Tanh())"),
    (nn.ModuleDict({"a": nn.ReLU()}), 'nn.ModuleDict({"a": nn.ReLU()})'),
    (nn.modules.linear.NonDynamicallyQuantizableLinear(3, 4), "nn.Linear(3, 4)"),
    (
        ScaledDotProductAttention(0.1, is_causal=True),
        "ScaledDotProductAttention(dropout_p=0.1, is_causal=True)",
    ),
    (nn.Linear(3, 4, device="meta"), "nn.Linear(3, 4)"),
]


@pytest.mark.parametrize(("module", "text"), CALLS, ids=[text for _, text in CALLS])
def test_the_call_is_the_one_a_person_would_write(module: nn.Module, text: str) -> None:
    assert written(module) == text


def test_a_named_sequence_keeps_its_names() -> None:
    sequence = nn.Sequential()
    sequence.add_module("a", nn.ReLU())
    imports = Imports()
    assert one_line(constructor(sequence, "part", imports)) == 'nn.Sequential(OrderedDict([("a", nn.ReLU())]))'
    assert "from collections import OrderedDict" in imports.lines()


def test_arguments_that_turn_out_unneeded_leave_no_imports_behind() -> None:
    imports = Imports()
    constructor(nn.Linear(3, 4), "part", imports)
    assert imports.lines() == ["from torch import nn"]


class Around(nn.Module):
    def __init__(self, inner: nn.Module, times: int = 1, act_layer: type[nn.Module] = nn.ReLU) -> None:
        super().__init__()
        self.inner, self.times, self.act = inner, times, act_layer()


def test_modules_and_their_classes_among_the_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Imports, "reference", lambda self, kind: ast.Name(kind.__name__))
    assert written(Around(nn.Linear(2, 3), 2, nn.Tanh)) == "Around(Linear(2, 3), times=2, act_layer=Tanh)"
    assert written(Around(nn.Tanh())) == "Around(Tanh())"


def changed_padding() -> nn.Module:
    module = nn.Conv2d(3, 4, 3)
    module.padding = (1, 1)
    return module


def hooked() -> nn.Module:
    module = nn.Linear(3, 4)
    module.register_forward_hook(lambda *_: None)
    return module


def tagged() -> nn.Module:
    module = nn.Linear(3, 4)
    module.note = "mine"  # type: ignore[assignment]  # torch types attributes as tensors
    return module


def cut() -> nn.Module:
    module = nn.Linear(3, 4)
    module.weight = nn.Parameter(torch.zeros(2, 3))
    return module


class Own(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (Own(), "`part` is a Own: .*Own belongs neither"),
        (nn.Sequential(nn.ReLU(), Own()), "`part.1` is a Own"),
        (nn.TransformerEncoderLayer(4, 2), "`part` is a TransformerEncoderLayer, whose constructor wants d_model"),
        (parametrizations.orthogonal(nn.Linear(3, 3)), "remove_parametrizations"),
        (hooked(), "hooks"),
        (tagged(), "'note' is 'mine', which its constructor does not set"),
        (cut(), r"weight is \(2, 3\)"),
        (changed_padding(), "_reversed_padding_repeated_twice"),
    ],
    ids=lambda case: type(case).__name__ if isinstance(case, nn.Module) else "",
)
def test_what_no_call_makes_again_is_refused(module: nn.Module, words: str) -> None:
    with pytest.raises(ExportError, match=words):
        written(module)
