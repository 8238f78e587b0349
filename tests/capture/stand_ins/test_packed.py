"""Packed sequences: models that pack and pad grow as others do, and answer as torch's own packed layers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

import graphgrow as gg
from graphgrow.errors import CaptureError, ExportError

Form = Callable[[Any, torch.Tensor, torch.Tensor], Any]
EXAMPLE = (torch.arange(28).reshape(4, 7) % 11 + 1, torch.tensor([7, 3, 5, 2]))
OTHER = (torch.arange(54).reshape(6, 9) % 11 + 1, torch.tensor([2, 9, 4, 1, 9, 3]))


class Reader(nn.Module):
    """Tokens and lengths through a recurrent layer, in one of the forms that people write."""

    def __init__(self, kind: type, form: Form, **options: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        width = 5 * (1 + options.get("bidirectional", False))
        self.embed, self.rnn = nn.Embedding(12, 6), kind(6, 5, **options)
        self.head, self.second, self.form = nn.Linear(width, 3), nn.GRU(width, width), form

    def forward(self, tokens: torch.Tensor, lengths: torch.Tensor) -> Any:
        return self.form(self, self.embed(tokens), lengths)


def _last_states(m: Any, x: torch.Tensor, n: torch.Tensor) -> Any:
    states = m.rnn(pack_padded_sequence(x, n.cpu(), batch_first=True, enforce_sorted=False))[1]
    states = states[0] if isinstance(states, tuple) else states
    return m.head(torch.cat([states[-2], states[-1]], 1))


def _mean_over_steps(m: Any, x: torch.Tensor, n: torch.Tensor) -> Any:
    packed, _ = m.rnn(pack_padded_sequence(x.transpose(0, 1), n, enforce_sorted=False))
    out, found = pad_packed_sequence(packed, batch_first=True, total_length=x.size(1))
    mask = torch.arange(x.size(1))[None] < found[:, None]
    return m.head((out * mask[..., None]).sum(1) / found[:, None])


def _two_layers(m: Any, x: torch.Tensor, n: torch.Tensor) -> Any:
    packed, _ = m.rnn(pack_padded_sequence(x, n, True, False))
    assert isinstance(packed, PackedSequence)
    packed, last = m.second(input=packed)
    return m.head(pad_packed_sequence(packed)[0]), last


def _sorted_by_hand(m: Any, x: torch.Tensor, n: torch.Tensor) -> Any:
    n, order = n.sort(descending=True)
    out, _ = pad_packed_sequence(m.rnn(pack_padded_sequence(x[order], n, batch_first=True))[0], batch_first=True)
    return m.head(out[order.argsort()].max(1)[0])


def _packed_and_not(m: Any, x: torch.Tensor, n: torch.Tensor) -> Any:
    out, state = m.rnn(x)
    packed, _ = m.rnn(pack_padded_sequence(x + out.mean(-1, keepdim=True), n, True, False), state)
    return m.head(pad_packed_sequence(packed, True)[0])


MODELS: dict[str, tuple[type, Form, dict[str, Any]]] = {
    "last states, LSTM": (nn.LSTM, _last_states, {"bidirectional": True}),
    "last states, two layers of GRU": (nn.GRU, _last_states, {"bidirectional": True, "num_layers": 2, "dropout": 0.2}),
    "mean over steps, LSTM": (nn.LSTM, _mean_over_steps, {"batch_first": True}),
    "mean over steps, RNN": (nn.RNN, _mean_over_steps, {"nonlinearity": "relu"}),
    "one layer on the other": (nn.LSTM, _two_layers, {}),
    "sorted by hand": (nn.LSTM, _sorted_by_hand, {"bias": False}),
    "packed and not packed": (nn.LSTM, _packed_and_not, {"batch_first": True}),
}


def _answers(module: nn.Module) -> list[torch.Tensor]:
    found = copy.deepcopy(module).double().eval()(*OTHER)
    return list(found) if isinstance(found, tuple) else [found]


@pytest.mark.parametrize("name", MODELS)
def test_models_that_pack_grow_at_other_lengths_too(name: str, tmp_path: Path) -> None:
    kind, form, options = MODELS[name]
    model = Reader(kind, form, **options)
    graph = gg.trace(model, EXAMPLE)
    assert graph.modes == {"eval", "train"}
    assert type(model.rnn) is kind  # the user's own stays what it is
    assert graph.module.state_dict().keys() <= model.state_dict().keys()
    mutations = [str(one) for one in (*graph.mutations("widen"), *graph.mutations("split"))]
    assert {one.partition("(")[2][:3] for one in mutations} == {"emb", "rnn"}  # what the second puts out stays
    for mutation in mutations:
        grown = gg.apply(graph, mutation)
        verdict = gg.verify(graph, grown)
        assert verdict.preserved, f"{mutation}: {verdict}"
        for one, other in zip(_answers(model), _answers(grown.module), strict=True):
            torch.testing.assert_close(other, one, rtol=0, atol=1e-12)
    gg.save(grown, tmp_path / "saved")
    loaded = gg.load(tmp_path / "saved", model)
    assert all(map(torch.equal, loaded.module.state_dict().values(), grown.module.state_dict().values()))
    gg.export_source(grown, tmp_path / "source")
    with pytest.raises(ExportError, match="packs its sequences by their lengths"):
        gg.export_onnx(grown, tmp_path / "m.onnx")


def _of_its_data(m: Any, x: torch.Tensor, n: torch.Tensor) -> Any:
    return m.head(pack_padded_sequence(x, n, True, False).data[:, :5])


def _put_out(m: Any, x: torch.Tensor, n: torch.Tensor) -> Any:
    return m.rnn(pack_padded_sequence(x, n, True, False))[0]


def _no_layer(m: Any, x: torch.Tensor, n: torch.Tensor) -> Any:
    return m.head(pad_packed_sequence(pack_padded_sequence(x, n, True, False), True)[0][..., :5])


def _padded_with_ones(m: Any, x: torch.Tensor, n: torch.Tensor) -> Any:
    packed, _ = m.rnn(pack_padded_sequence(x, n, True, False))
    return m.head(pad_packed_sequence(packed, True, 1.0)[0])


def _padded_twice(m: Any, x: torch.Tensor, n: torch.Tensor) -> Any:
    packed, _ = m.rnn(pack_padded_sequence(x, n, True, False))
    return pad_packed_sequence(packed, True, total_length=8)[0], pad_packed_sequence(packed, True, total_length=9)[0]


def _padded_to_itself(m: Any, x: torch.Tensor, n: torch.Tensor) -> Any:
    packed, state = m.rnn(pack_padded_sequence(x, n, True, False))
    return pad_packed_sequence(packed, True, total_length=state[0].size(2) + 4)[0]


def _numbers(m: Any, x: torch.Tensor, n: torch.Tensor) -> Any:
    return m.head(m.rnn(pack_padded_sequence(x, [7, 5, 3, 2], True))[1][0][-1])


REFUSED: dict[str, Form] = {
    "lengths that are numbers of Python's": _numbers,
    "asked for its `data`": _of_its_data,
    "is put out, or read by another operator": _put_out,
    "with no recurrent layer in between": _no_layer,
    "padding_value=1.0": _padded_with_ones,
    "padded to two lengths": _padded_twice,
    "worked out from what the layer puts out": _padded_to_itself,
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_has_no_size_for_all_lengths_is_refused(words: str) -> None:
    with pytest.raises(CaptureError, match=words):
        gg.trace(Reader(nn.LSTM, REFUSED[words]), EXAMPLE, way="fx")


class _Own(nn.RNN):
    """With a forward of its own, perhaps."""


def test_layers_of_ones_own_take_no_packed_sequence() -> None:
    model = Reader(_Own, _last_states, bidirectional=True)
    with pytest.raises(CaptureError, match="a packed sequence is taken apart"):
        gg.trace(model, EXAMPLE, way="fx")
    with pytest.raises(CaptureError, match="the leaf `rnn` puts out a packed sequence"):
        gg.trace(model, EXAMPLE, leaves=[_Own])


class _Pads(nn.Module):
    """The padding in a module of its own."""

    def forward(self, packed: PackedSequence) -> torch.Tensor:
        padded: torch.Tensor = pad_packed_sequence(packed, True)[0]
        return padded


def test_modules_that_take_a_packed_sequence_are_looked_into() -> None:
    model = Reader(nn.LSTM, lambda m, x, n: m.head(m.pads(m.rnn(pack_padded_sequence(x, n, True, False))[0])))
    model.pads = _Pads()
    assert [str(one) for one in gg.trace(model, EXAMPLE).mutations("split")] == ["split(embed)", "split(rnn:hidden)"]
    with pytest.raises(CaptureError, match=r"`pads` \(_Pads\) takes a packed sequence"):
        gg.trace(model, EXAMPLE, leaves=[_Pads], way="fx")
