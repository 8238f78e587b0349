"""The forward reads as a person would write it, and computes what the graph computes."""

from __future__ import annotations

import inspect
import operator
import textwrap
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import fx, nn
from torch.nn import functional as F

from graphgrow.capture.trace import capture
from graphgrow.errors import ExportError
from graphgrow.source.forward import forward_lines
from graphgrow.source.imports import Imports
from graphgrow.source.tree import Tree


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
        self.scale = nn.Parameter(torch.randn(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = x + F.relu(block(x)) * self.scale
        return x


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(4, 12)
        self.position = nn.Parameter(torch.randn(9, 4))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        b, n, _ = tokens.shape
        q, k, v = self.qkv(tokens + self.position[:n]).chunk(3, dim=-1)
        weights = F.softmax(q.view(b, n, 2, 2).transpose(1, 2) @ k.view(b, n, 2, 2).permute(0, 2, 3, 1), dim=-1)
        return (weights @ v.view(b, n, 2, 2).transpose(1, 2)).transpose(1, 2).flatten(2)


class InPlace(nn.Module):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        x = input * 2
        x += 1
        x[:, 0] = 5
        x[0, ..., -1:] = float("inf")
        return torch.nan_to_num(x, posinf=7.0)


class Sizes(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n = x.size(-1)
        grid = torch.arange(n, device=torch.device("cpu"), dtype=torch.float32) / n**2
        y = F.pad(x, (1, 1), mode="constant", value=None)
        return (y[..., 1:-1] + grid).to(torch.float64)


class Constant(nn.Module):
    def forward(self, x: torch.Tensor, flag: bool = True) -> dict[str, Any]:
        y = x @ torch.tensor([[1.0, 2.0], [3.0, 4.0]])
        return {"sum": (y.sum(), x), "last": y[-1]}


EXPECTED: dict[type[nn.Module], tuple[tuple[int, ...], str]] = {
    Residual: (
        (3, 4),
        """
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.blocks[0](x)
            y = F.relu(y)
            y = y * self.scale
            x = x + y
            y = self.blocks[1](x)
            y = F.relu(y)
            y = y * self.scale
            x = x + y
            return x
        """,
    ),
    Attention: (
        (2, 5, 4),
        """
        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            shape = tokens.shape
            size_0 = shape[0]
            size_1 = shape[1]
            x = self.position[:size_1]
            x = tokens + x
            x = self.qkv(x)
            chunk = x.chunk(3, dim=-1)
            chunk_0 = chunk[0]
            chunk_1 = chunk[1]
            chunk_2 = chunk[2]
            chunk_0 = chunk_0.view(size_0, size_1, 2, 2)
            chunk_0 = chunk_0.transpose(1, 2)
            chunk_1 = chunk_1.view(size_0, size_1, 2, 2)
            chunk_1 = chunk_1.permute(0, 2, 3, 1)
            chunk_0 = chunk_0 @ chunk_1
            chunk_0 = F.softmax(chunk_0, dim=-1)
            chunk_2 = chunk_2.view(size_0, size_1, 2, 2)
            chunk_2 = chunk_2.transpose(1, 2)
            chunk_0 = chunk_0 @ chunk_2
            chunk_0 = chunk_0.transpose(1, 2)
            chunk_0 = chunk_0.flatten(2)
            return chunk_0
        """,
    ),
    InPlace: (
        (2, 3),
        """
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            x = input * 2
            x = x + 1
            x[:, 0] = 5
            x[0, ..., -1:] = float("inf")
            x = torch.nan_to_num(x, posinf=7.0)
            return x
        """,
    ),
    Sizes: (
        (2, 3),
        """
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            size_last = x.size(-1)
            y = torch.arange(size_last, device=torch.device("cpu"), dtype=torch.float32)
            pow_ = size_last**2
            y = y / pow_
            x = F.pad(x, (1, 1))
            x = x[..., 1:-1]
            x = x + y
            x = x.to(torch.float64)
            return x
        """,
    ),
    Constant: (
        (5, 2),
        """
        def forward(self, x: torch.Tensor, flag=True):
            require_same(flag, True, "flag")
            y = x @ self._tensor_constant0
            z = y.sum()
            y_last = y[-1]
            return {"sum": (z, x), "last": y_last}
        """,
    ),
}


def lines_of(module: fx.GraphModule) -> tuple[list[str], Imports]:
    imports = Imports()
    tensors = {str(node.target) for node in module.graph.nodes if node.op == "placeholder"} - {"flag"}
    return forward_lines(Tree(module), imports, tensors, set()), imports


def function_of(lines: list[str], imports: Imports) -> Callable[..., Any]:
    names: dict[str, Any] = {}
    text = [*imports.lines(), *imports.sources.values(), "class Holder:", *lines]
    exec(compile("\n".join(text), "generated", "exec"), names)
    function: Callable[..., Any] = names["Holder"].forward
    return function


@pytest.mark.parametrize("kind", EXPECTED, ids=lambda kind: kind.__name__)
def test_it_reads_as_a_person_would_write_it(kind: type[nn.Module]) -> None:
    shape, text = EXPECTED[kind]
    lines, _ = lines_of(capture(kind(), torch.randn(shape)).module)
    assert textwrap.dedent("\n".join(lines)) == textwrap.dedent(text).strip()


@pytest.mark.parametrize("kind", EXPECTED, ids=lambda kind: kind.__name__)
def test_it_computes_the_same(kind: type[nn.Module]) -> None:
    shape, _ = EXPECTED[kind]
    model = kind()
    module = capture(model, torch.randn(shape)).module
    setattr(model, "_tensor_constant0", getattr(module, "_tensor_constant0", None))  # noqa: B010
    function = function_of(*lines_of(module))
    x = torch.randn(4, *shape[1:])
    wanted, found = model(x.clone()), function(model, x.clone())
    for one, other in zip(torch.utils._pytree.tree_leaves(wanted), torch.utils._pytree.tree_leaves(found), strict=True):
        assert torch.equal(one, other)


def test_long_signatures_are_one_input_a_line() -> None:
    graph = fx.Graph()
    inputs = [
        graph.placeholder(f"a_rather_long_name_{i}", default_value=i if i > 3 else inspect.Signature.empty)
        for i in range(6)
    ]
    graph.output(tuple(inputs))
    lines, imports = lines_of(fx.GraphModule(nn.Module(), graph))
    assert lines[0] == "    def forward("
    assert lines[2] == "        a_rather_long_name_0: torch.Tensor,"
    assert lines[6] == "        a_rather_long_name_4: torch.Tensor = 4,"
    assert function_of(lines, imports)(None, 1, 2, 3, 4) == (1, 2, 3, 4, 4, 5)


def test_variables_hide_no_imports_and_no_builtins() -> None:
    graph = fx.Graph()
    x = graph.placeholder("torch_")
    first = graph.create_node("call_function", F.relu, (x,), name="F")
    second = graph.create_node("call_method", "sum", (first,), name="nn")
    third = graph.call_function(torch.add, (first, second))
    graph.output((graph.call_function(torch.mul, (third, first)), graph.call_function(F.gelu, (second,)), third))
    lines, imports = lines_of(fx.GraphModule(nn.Module(), graph))
    value = torch.randn(3)
    y = F.relu(value)
    wanted = ((y + y.sum()) * y, F.gelu(y.sum()), y + y.sum())
    assert all(map(torch.equal, function_of(lines, imports)(None, value), wanted))


def test_in_place_operators_keep_their_spelling() -> None:
    graph = fx.Graph()
    y = graph.call_function(operator.neg, (graph.placeholder("x"),))
    graph.output(graph.call_function(torch.sin, (graph.call_function(operator.iadd, (y, 1)),)))
    lines, imports = lines_of(fx.GraphModule(nn.Module(), graph))
    assert [line.strip() for line in lines[1:]] == ["x = -x", "x += 1", "x = torch.sin(x)", "return x"]
    assert torch.equal(function_of(lines, imports)(None, torch.ones(2)), torch.zeros(2))


def test_arithmetic_that_nothing_reads_is_left_out_and_checks_are_not() -> None:
    graph = fx.Graph()
    x = graph.placeholder("x")
    size = graph.call_method("size", (x, 0))
    graph.call_function(operator.pow, (size, 2))
    graph.call_function(
        torch._assert, (graph.call_function(operator.eq, (graph.call_method("dim", (x,)), 2)), "no matrix")
    )
    graph.output(x)
    lines, _ = lines_of(fx.GraphModule(nn.Module(), graph))
    assert [line.strip() for line in lines[1:]] == [
        "dim = x.dim()",
        "eq = dim == 2",
        'torch._assert(eq, "no matrix")',
        "return x",
    ]


def own(x: torch.Tensor) -> torch.Tensor:
    return x


@pytest.mark.parametrize("target", [own, lambda x: x])
def test_functions_of_the_user_are_refused(target: Any) -> None:
    graph = fx.Graph()
    graph.output(graph.call_function(target, (graph.placeholder("x"),)))
    with pytest.raises(ExportError, match="plain file"):
        lines_of(fx.GraphModule(nn.Module(), graph))


def test_other_code_generators_are_refused() -> None:
    class Own(fx.graph.CodeGen):
        pass

    module = fx.symbolic_trace(nn.ReLU())
    module.graph.set_codegen(Own())
    with pytest.raises(ExportError, match="code generator"):
        lines_of(module)


def test_values_that_are_no_python_are_refused() -> None:
    graph, thing = fx.Graph(), object()
    graph.output(graph.call_function(torch.add, (graph.placeholder("x"), thing)))  # type: ignore[arg-type]
    module = fx.GraphModule(nn.Module(), fx.symbolic_trace(nn.ReLU()).graph)
    module._graph = graph  # fx itself would not compile it
    with pytest.raises(ExportError, match=r"no Python: .*<object object at .*; trace it anew"):
        lines_of(module)
