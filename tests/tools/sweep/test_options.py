"""Options survive JSON and read like the command line."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from tools.sweep.options import Options


def test_options_come_back_from_json() -> None:
    options = Options(sites=6, input=(2, 3, 64, 64), batch_sizes=(), chain_verify="end")
    data = json.loads(json.dumps(options.to_json()))
    assert data == options.to_json()  # rows are compared in this form
    assert Options.from_json(data) == options


def test_every_option_counts() -> None:
    plain = Options()
    for field in dataclasses.fields(Options):
        change: dict[str, Any] = {field.name: "other"}
        assert str(dataclasses.replace(plain, **change)) != str(plain)


def test_options_read_like_the_command_line() -> None:
    assert str(Options(sites=6)) == "--sites 6 --seed 0"
    assert str(Options(batch_sizes=(), input=(2, 8))) == '--sites 0 --seed 0 --input 2,8 --batch-sizes ""'


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(TypeError, match="speed"):
        Options.from_json({"speed": 1})
