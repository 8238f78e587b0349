"""The statements of a generated constructor, run: the module they build is the graph's in all but its numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import fx, nn

from graphgrow.errors import ExportError
from graphgrow.source.hierarchy import PART_SOURCE, Hierarchy, mode_lines
from graphgrow.source.imports import Imports
from graphgrow.source.likeness import difference
from graphgrow.source.tree import Tree


def graph_of(root: nn.Module, *targets: str) -> fx.GraphModule:
    """A graph module that calls (modules) or adds (tensors) its targets one after the other."""
    graph = fx.Graph()
    value = graph.placeholder("x")
    for target in targets:
        owner, _, name = target.rpartition(".")
        if isinstance(getattr(root.get_submodule(owner), name), nn.Module):
            value = graph.call_module(target, (value,))
        else:
            value = graph.call_function(torch.add, (value, graph.get_attr(target)))
    graph.output(value)
    return fx.GraphModule(root, graph)


def nest(**members: Any) -> nn.Module:
    holder = nn.Module()
    for name, member in members.items():
        setattr(holder, name, member)
    return holder


def body(module: fx.GraphModule) -> tuple[str, Imports]:
    imports = Imports()
    return "\n".join(Hierarchy(Tree(module), imports).lines()), imports


def built(module: fx.GraphModule) -> nn.Module:
    """What the statements build, with the numbers and the modes of the module."""
    text, imports = body(module)
    imports.add("typing", "Any")
    imports.add("torch", "nn")
    imports.add("torch")
    head = "\n".join([*imports.lines(), *imports.sources.values(), PART_SOURCE])
    base = "Part" if Tree(module).is_numbered else "nn.Module"
    modes = "\n".join("    " + line for line in ["net = Net()", *mode_lines(Tree(module), "net"), "return net"])
    start = f"class Net({base}):\n    def __init__(self):\n        super().__init__()"
    code = "\n".join([head, start, text, "def make():", modes])
    names: dict[str, Any] = {}
    exec(compile(code, "generated", "exec"), names)
    net: nn.Module = names["make"]()
    sources = dict([*module.named_parameters(), *module.named_buffers()])
    for name, tensor in [*net.named_parameters(), *net.named_buffers()]:
        tensor.data.copy_(sources[name])
    return net


def tied() -> fx.GraphModule:
    root = nest(
        embed=nn.Embedding(5, 3), head=nn.Linear(3, 5, bias=False), inner=nest(bias=nn.Parameter(torch.ones(3)))
    )
    root.head.weight = root.embed.weight
    root.inner.again = root.inner.bias
    return graph_of(root, "embed", "inner.bias", "inner.again", "head")


def shared() -> fx.GraphModule:
    act, block = nn.PReLU(), nest(first=nn.Linear(3, 3), last=nn.Linear(3, 3))
    root = nest(a=act, parts=nn.Module(), b=block, c=block)
    root.parts.add_module("0", act)
    root.parts.add_module("1", nn.ReLU())
    graph = graph_of(root, "a", "parts.0", "parts.1", "b.first", "b.last", "c.first", "c.last")
    graph.c = graph.b  # fx makes a holder of its own for each path
    return graph


def bare() -> fx.GraphModule:
    root = nest(
        scale=nn.Parameter(torch.randn(3)),
        count=nn.Parameter(torch.arange(3), requires_grad=False),
        inner=nest(mask=nn.Buffer(torch.ones(3, dtype=torch.bool)), shift=nn.Buffer(torch.randn(()))),
    )
    graph = graph_of(root, "scale", "count", "inner.mask", "inner.shift")
    graph.inner._non_persistent_buffers_set.add("shift")
    return graph


def mixed() -> fx.GraphModule:
    root = nest(
        a=nn.Linear(3, 3).bfloat16(),
        norm=nn.LayerNorm(3),
        b=nn.Linear(3, 3).double(),
        s=nn.Parameter(torch.ones(3).half()),
    )
    return graph_of(root, "a", "norm", "b", "s")


def frozen() -> fx.GraphModule:
    root = nest(a=nn.Linear(3, 3), b=nest(norm=nn.BatchNorm1d(3), out=nn.Linear(3, 3)), s=nn.Parameter(torch.ones(3)))
    graph = graph_of(root, "a", "b.norm", "b.out", "s")
    graph.a.bias.requires_grad_(False)
    graph.b.norm.requires_grad_(False)
    graph.s.requires_grad_(False)
    graph.b.norm.eval()
    return graph


def sequence() -> fx.GraphModule:
    return fx.symbolic_trace(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 1)).eval())


def channels_last() -> fx.GraphModule:
    graph = sequence()
    graph.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch types this form for tensors alone
    return graph


def complex_buffer() -> fx.GraphModule:
    root = nest(a=nn.Linear(3, 3).double(), turn=nn.Buffer(torch.randn(3, dtype=torch.complex64)))
    return graph_of(root, "a", "turn")


CASES = [tied, shared, bare, mixed, frozen, sequence, channels_last, complex_buffer]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_the_module_is_built_again(case: Callable[[], fx.GraphModule]) -> None:
    module = case()
    net = built(module)
    assert difference(module, net, Tree(module).holder_names()) is None
    assert list(net.state_dict()) == list(module.state_dict())
    assert [p.stride() for p in net.parameters()] == [p.stride() for p in module.parameters()]


@pytest.mark.parametrize(
    ("case", "lines"),
    [
        (tied, ["self.head.weight = self.embed.weight", "self.inner.again = self.inner.bias"]),
        (shared, ["shared_a = nn.PReLU()", "self.a = shared_a", "self.parts = nn.ModuleList([shared_a, nn.ReLU()])"]),
        (bare, ["self.count = nn.Parameter(torch.zeros(3, dtype=torch.int64), requires_grad=False)"]),
        (mixed, ["self.a.to(torch.bfloat16)", "self.b.to(torch.float64)"]),
        (frozen, ["self.s.requires_grad_(False)", "self.a.bias.requires_grad_(False)"]),
        (sequence, ['self.add_module("1", nn.ReLU())']),
        (channels_last, ["self.to(memory_format=torch.channels_last)"]),
    ],
)
def test_it_reads_as_a_person_would_write_it(case: Callable[[], fx.GraphModule], lines: list[str]) -> None:
    text = [line.strip() for line in body(case())[0].splitlines()]
    assert set(lines) <= set(text), text


def test_a_uniform_dtype_is_one_statement() -> None:
    text, _ = body(graph_of(nest(a=nn.Linear(3, 3).double(), b=nn.Linear(3, 3).double()), "a", "b"))
    assert text.count("float64") == 1
    assert text.strip().endswith("self.to(torch.float64)")


def test_equal_blocks_are_written_once() -> None:
    blocks = nn.Module()
    for number in range(4):
        blocks.add_module(str(number), nest(a=nn.Linear(3, 3), b=nn.ReLU()))
    text, _ = body(graph_of(nest(blocks=blocks), *(f"blocks.{n}.{c}" for n in range(4) for c in "ab")))
    assert text.strip() == "self.blocks = nn.ModuleList([Part(a=nn.Linear(3, 3), b=nn.ReLU()) for _ in range(4)])"


def test_what_is_fetched_and_is_no_tensor_has_a_spelling_or_is_refused() -> None:
    root = nest(sizes=(2, 3), thing=nest(inner=object()))
    graph = fx.Graph()
    graph.placeholder("x")
    graph.output((graph.get_attr("sizes"), graph.get_attr("thing.inner")))
    with pytest.raises(ExportError, match=r"`thing\.inner` is no tensor: a value of type object .*; delete it from"):
        body(fx.GraphModule(root, graph))


def test_modes_take_few_calls() -> None:
    module = frozen().eval()
    assert mode_lines(Tree(module), "net") == ["net.eval()"]
    module.train().b.norm.eval()
    assert mode_lines(Tree(module), "net") == ["net.b.norm.eval()"]
    module.eval().b.train().norm.eval()
    assert mode_lines(Tree(module), "net") == ["net.eval()", "net.b.train()", "net.b.norm.eval()"]
