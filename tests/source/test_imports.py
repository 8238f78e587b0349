"""What generated code refers to becomes imports that a plain environment has; graphgrow's own modules become source."""

from __future__ import annotations

import collections
import math
import operator
from typing import Any

import numpy
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from graphgrow.errors import ExportError
from graphgrow.layers import ScaledDotProductAttention, connections, require_same
from graphgrow.source.imports import Imports
from graphgrow.source.layout import one_line


def own_function(x: Any) -> Any:
    return x


@pytest.mark.parametrize(
    ("thing", "name", "lines"),
    [
        (nn.Linear, "nn.Linear", ["from torch import nn"]),
        (torch.zeros, "torch.zeros", ["import torch"]),
        (F.relu, "F.relu", ["from torch.nn import functional as F"]),
        (operator.setitem, "operator.setitem", ["import operator"]),
        (math.floor, "math.floor", ["import math"]),
        (collections.OrderedDict, "collections.OrderedDict", ["import collections"]),
        (len, "len", []),
        (torch.fx.Graph, "Graph", ["from torch.fx.graph import Graph"]),
        (F, "F", ["from torch.nn import functional as F"]),
        (math, "math", ["import math"]),
        (torch.fft, "fft", ["from torch import fft"]),
    ],
)
def test_things_go_by_their_usual_names(thing: Any, name: str, lines: list[str]) -> None:
    imports = Imports()
    assert one_line(imports.reference(thing)) == name
    assert imports.lines() == lines


@pytest.mark.parametrize(
    ("parts", "name"),
    [
        (["_C", "_nn", "gelu"], "F.gelu"),
        (["functional", "einsum"], "torch.einsum"),
        (["nn", "functional", "relu"], "F.relu"),
        (["float64"], "torch.float64"),
        (["Tensor"], "torch.Tensor"),
        (["ops", "aten", "relu", "default"], "torch.ops.aten.relu.default"),
        (["special", "expit"], "torch.special.expit"),
    ],
)
def test_names_below_torch_are_the_public_ones(parts: list[str], name: str) -> None:
    assert one_line(Imports().torch_name(parts)) == name


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ((1, [2.5, None], {"a": True}), '(1, [2.5, None], {"a": True})'),
        (float("-inf"), 'float("-inf")'),
        (torch.Size([2, 3]), "(2, 3)"),
        (torch.bfloat16, "torch.bfloat16"),
        (torch.device("cuda", 1), 'torch.device("cuda:1")'),
        (torch.channels_last, "torch.channels_last"),
        (F.gelu, "F.gelu"),
    ],
)
def test_literals(value: Any, text: str) -> None:
    assert one_line(Imports().literal(value)) == text


def test_imports_are_sorted_by_section() -> None:
    imports = Imports()
    for thing in (nn.Linear, F.relu, torch.add, math.floor, torch.fx.Graph):
        imports.reference(thing)
    imports.add("typing", "Any")
    assert imports.lines() == [
        "import math",
        "from typing import Any",
        "",
        "import torch",
        "from torch import nn",
        "from torch.fx.graph import Graph",
        "from torch.nn import functional as F",
    ]


@pytest.mark.parametrize("thing", [own_function, lambda x: x, Imports])
def test_what_only_graphgrow_or_the_user_has_is_refused(thing: Any) -> None:
    with pytest.raises(ExportError, match="plain file"):
        Imports().reference(thing)


def test_modules_of_other_packages_are_refused() -> None:
    with pytest.raises(ExportError, match=r"the graph uses the module 'numpy\.linalg', which a plain file cannot"):
        Imports().reference(numpy.linalg)


def test_what_is_not_found_by_its_name_is_refused() -> None:
    def inner(x: Any) -> Any:
        return x

    inner.__module__ = "torch.nn.functional"
    with pytest.raises(ExportError, match=r"torch\.nn\.functional\.inner cannot be imported by that name"):
        Imports().reference(inner)


def test_registered_operators_are_refused() -> None:
    with pytest.raises(ExportError, match=r"torch\.ops\.mine\.act"):
        Imports().torch_name(["ops", "mine", "act"])


def test_values_without_a_spelling_are_refused() -> None:
    with pytest.raises(ExportError, match="type object"):
        Imports().literal([object()])


def test_one_name_has_one_meaning() -> None:
    imports = Imports()
    imports.add("torch", "fft")
    with pytest.raises(ExportError, match="rename one"):
        imports.add("numpy", "fft")


def test_own_live_modules_come_with_their_source() -> None:
    imports = Imports()
    assert one_line(imports.reference(ScaledDotProductAttention)) == "ScaledDotProductAttention"
    imports.reference(require_same)
    text = "\n".join(["from __future__ import annotations", *imports.lines(), *imports.sources.values()])
    assert "graphgrow" not in text
    names: dict[str, Any] = {}
    exec(compile(text, "generated", "exec"), names)
    module = names["ScaledDotProductAttention"](dropout_p=0.5, scale=2.0).eval()
    x = torch.randn(2, 3, 4)
    assert torch.equal(module(x, x, x), F.scaled_dot_product_attention(x, x, x, scale=2.0))
    with pytest.raises(ValueError, match="mask"):
        names["require_same"](1, None, "mask")


def test_a_source_brings_what_it_refers_to_first(monkeypatch: pytest.MonkeyPatch) -> None:
    source = {
        "Outer": "class Outer(nn.Module):\n    inner = Inner\n    size = SIZE\n",
        "Inner": "class Inner:\n    pass\n",
    }
    for name in source:
        kind = type(name, (), {"__module__": connections.__name__})
        monkeypatch.setattr(connections, name, kind, raising=False)
    monkeypatch.setattr(connections, "SIZE", 3, raising=False)
    monkeypatch.setattr("graphgrow.source.imports.inspect.getsource", lambda thing: source[thing.__name__])
    imports = Imports()
    imports.reference(vars(connections)["Outer"])
    assert list(imports.sources.values()) == [source["Inner"], "SIZE = 3\n", source["Outer"]]
    assert imports.lines() == ["from torch import nn"]


def test_packages_beside_torch_are_named() -> None:
    imports = Imports()
    imports.add("torchvision.ops.misc", "Permute")
    imports.reference(nn.Linear)
    assert imports.packages == ("torchvision",)
