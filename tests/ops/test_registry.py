"""Rules of a user's own: the page's example, as it stands there, grows a model that is then verified."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.ir import flow as fl
from graphgrow.ir.value import Fresh, Value
from graphgrow.ops import registry
from graphgrow.ops.call import Call
from tests.preserved import assert_preserved

PAGE = Path(__file__).parents[2] / "docs" / "writing_rules.md"


@pytest.fixture
def scale() -> Iterator[Any]:
    (example,) = re.findall(r"```python\n(class Scale.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {
        "__name__": "example", "nn": nn, "torch": torch, "gg": gg, "fl": fl, "Fresh": Fresh, "Value": Value,
        "Call": Call,
    }  # fmt: skip
    exec(compile(example, str(PAGE), "exec", dont_inherit=True), names)
    yield names["Scale"]
    del registry._RULES[names["Scale"]]


@pytest.mark.parametrize("text", ["widen(0, extra=3)", "split(0, units=[1])", "split(0)"])
def test_the_example_of_the_page_grows_exactly(scale: Any, text: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), scale(4), nn.Linear(4, 2))
    nn.init.normal_(model.get_parameter("1.gain"))
    graph = gg.trace(model, torch.randn(2, 3))
    assert graph.group("0").members == ("0", "1")
    child = gg.apply(graph, text)
    assert_preserved(graph, child)
    grown = child.module.get_submodule("1")
    assert grown.width == grown.gain.numel() == child.group("0").size


def test_what_has_a_rule_is_not_given_another() -> None:
    with pytest.raises(ValueError, match="has a rule already"):
        gg.axis_rule(nn.Linear)(lambda call: None)
