"""Data by name: sound parts, repeatable, and clear about what is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from graphgrow.data.names import load_data
from graphgrow.data.parts import Part
from graphgrow.errors import DataError


def test_patterns_come_from_their_seed_and_share_nothing() -> None:
    first, second, other = (load_data("patterns", count=60, held_out=30, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.training.inputs, second.training.inputs)
    assert not torch.equal(first.training.inputs, other.training.inputs)
    assert first.training.inputs.shape == (60, 3, 32, 32)
    assert not torch.equal(first.validation.inputs, first.test.inputs)
    assert set(first.training.targets.tolist()) <= set(range(10))


def test_a_pattern_can_be_found_where_it_was_put() -> None:
    """Without noise, an image of class c matches some patch of class c best at some place: a linear probe is enough."""
    from graphgrow.data.patterns import CLASSES, PATCH, _smooth

    data = load_data("patterns", count=40, held_out=10, variants=2, noise=0.0, confused=0.0, seed=3)
    shown = _smooth(CLASSES * 2, PATCH, 5, torch.Generator().manual_seed(3))
    kernels = torch.cat([shown, shown.flip(3)])
    matches = torch.nn.functional.conv2d(data.training.inputs, kernels).amax((2, 3))
    found = matches.argmax(1) % (2 * CLASSES) // 2
    assert float((found == data.training.targets).float().mean()) > 0.8


def test_text_is_cut_into_windows_with_the_next_character_as_target(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("abcdefghij" * 100)
    data = load_data("text", file=str(file), length=8)
    stream = torch.cat([data.training.inputs.flatten(), data.validation.inputs.flatten()])
    assert torch.equal(data.training.inputs.flatten()[1:], data.training.targets.flatten()[:-1])
    assert torch.equal(stream[:10], stream[10:20])
    assert len(set(stream.tolist())) == 10
    assert load_data("text", most=5000).training.inputs.max() < 64
    with pytest.raises(DataError, match="at least 800 are wanted"):
        load_data("text", file=str(file), length=8, most=700)
    with pytest.raises(DataError, match=r"cannot read .*missing\.txt"):
        load_data("text", file=str(tmp_path / "missing.txt"))


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no data 'cifar'; there are digits, patterns, text, folder, cifar10"):
        load_data("cifar")
    with pytest.raises(DataError, match="cifar10 is read from a folder: give --root"):
        load_data("cifar10")
    refused = r"holds no complete CIFAR10 \(a file is missing, or its checksum .* put its files there.*data `folder`"
    with pytest.raises(DataError, match=refused):
        load_data("cifar10", root=str(tmp_path))
    made = tmp_path / "cifar-10-batches-py"
    made.mkdir()
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta"):
        (made / name).write_bytes(b"of the user's own")
    with pytest.raises(DataError, match=refused):
        load_data("cifar10", root=str(tmp_path))
    with pytest.raises(DataError, match="'patterns' do not take these options"):
        load_data("patterns", size=3)


def no_data() -> int:
    return 3


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("tests.data.test_names:no_data", {}, "returns a int, wanted a graphgrow.data.parts.Data"),
        ("tests.data.test_names:nowhere", {}, "cannot get the data tests.data.test_names:nowhere"),
        ("no_such_package:data", {}, "is its folder the current one, or on PYTHONPATH"),
        ("patterns", {"count": 0}, "counts are at least 1, noise at least 0, confused a share"),
        ("patterns", {"confused": 1.5}, "counts are at least 1, noise at least 0, confused a share"),
    ],
)
def test_what_gives_no_data_is_refused(name: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        load_data(name, **options)


def test_each_input_has_a_target() -> None:
    with pytest.raises(DataError, match="3 inputs have 2 targets, wanted one for each"):
        Part(torch.zeros(3, 1), torch.zeros(2, dtype=torch.int64))
