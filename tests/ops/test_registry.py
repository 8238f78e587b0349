"""Rules of a user's own: the page's examples, as they stand there, grow models that are then verified."""

from __future__ import annotations

import copy
import io
import re
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import fx, nn

import graphgrow as gg
from graphgrow.ops.registry import registered
from graphgrow.rules import Call, Value, axis_rule, flow
from tests.ops.rules_kept import rules_kept
from tests.preserved import assert_preserved

PAGE = Path(__file__).parents[2] / "docs" / "writing_rules.md"


@pytest.fixture(scope="module", autouse=True)
def _rules_of_this_file_alone() -> Iterator[None]:
    with rules_kept():
        yield


@pytest.fixture(scope="module")
def page() -> Any:
    """What the examples of the page define, in a module of its own."""
    text = PAGE.read_text(encoding="utf-8")
    examples = re.findall(r"```python\n(.*?)```", text[text.index("## For an operator of your own") :], re.DOTALL)
    module = types.ModuleType("page_of_rules")
    exec(compile("\n".join(examples), str(PAGE), "exec", dont_inherit=True), module.__dict__)
    return module


class Between(nn.Module):
    """Two linear maps with an operator of a user's between them."""

    def __init__(self, operator: Callable[..., Any], weight: torch.Tensor | None = None) -> None:
        super().__init__()
        self.up, self.down, self._operator = nn.Linear(3, 4), nn.Linear(5, 2), operator
        self.weight = nn.Parameter(torch.randn(5, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self._operator(self.up(x), self.weight)
        result: torch.Tensor = self.down(torch.relu(hidden))
        return result


def between(operator: Callable[..., Any], way: str = "auto") -> gg.Graph:
    torch.manual_seed(0)
    return gg.trace(Between(operator).eval(), torch.randn(2, 3), way=way)


def grows(graph: gg.Graph, *texts: str) -> None:
    for text in texts:
        child = gg.apply(graph, text)
        assert_preserved(graph, child)
        assert gg.verify(graph, child).preserved is True


def targets(graph: gg.Graph) -> list[Any]:
    return [node.target for node in graph.module.graph.nodes if node.op == "call_function"]


@pytest.mark.parametrize("text", ["widen(0, extra=3)", "split(0, units=[1])", "split(0)"])
def test_the_module_of_the_page_grows_exactly(page: Any, text: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), page.Scale(4), nn.Linear(4, 2))
    nn.init.normal_(model.get_parameter("1.gain"))
    graph = gg.trace(model, torch.randn(2, 3))
    assert graph.group("0").members == ("0", "1")
    child = gg.apply(graph, text)
    assert_preserved(graph, child)
    grown = child.module.get_submodule("1")
    assert grown.width == grown.gain.numel() == child.group("0").size


@pytest.mark.parametrize("way", ["fx", "dynamo"])
@pytest.mark.parametrize("kind", ["definition", "packet", "overload"])
def test_the_operator_of_the_page_grows_whatever_object_stands_for_it(page: Any, kind: str, way: str) -> None:
    packet = torch.ops.mine.rows
    operator = {"definition": page.rows, "packet": packet, "overload": packet.default}[kind]
    graph = between(operator, way)
    assert {group.name for group in graph.groups if group.frozen is None} == {"up", "weight"}
    if kind == "definition" or way == "fx":
        grows(graph, "widen(up, extra=2)", "widen(weight, extra=2)", "split(up)", "split(weight)")


@pytest.mark.parametrize("way", ["fx", "dynamo"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_function_with_a_rule_stays_one_node(page: Any, way: str, wrapped: bool) -> None:
    code = page.swish.__code__
    if wrapped:
        exec("torch.fx.wrap('swish')", page.__dict__)
    kept = {"under another name": page.swish}  # as a closure, a dictionary, a default
    model = nn.Sequential(nn.Linear(3, 4), _Calls(lambda x: kept["under another name"](x, beta=2.0)), nn.Linear(4, 2))
    graph = gg.trace(model, torch.randn(2, 3), way=way)
    assert page.swish in targets(graph)
    assert torch.sigmoid not in targets(graph)
    grows(graph, "widen(0, extra=2)", "split(0)")
    assert page.swish.__code__ is code
    x = torch.randn(5, 3)
    assert torch.equal(graph.module(x), model(x))
    assert torch.equal(copy.deepcopy(graph.module)(x), model(x))


class _Calls(nn.Module):
    def __init__(self, run: Callable[..., Any]) -> None:
        super().__init__()
        self._run = run

    def forward(self, x: torch.Tensor) -> Any:
        return self._run(x)


def halves(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    first, second = x * 0.5, x * 0.25
    return first, second


def test_a_function_of_a_file_is_pickled_by_its_name_and_may_return_several() -> None:
    @axis_rule(halves)
    def rule(call: Call, x: Value) -> tuple[Value, Value]:
        first, second = (call.output(x.axes, call.same_flow(x), index=i) for i in range(2))
        return first, second

    def both(x: torch.Tensor) -> torch.Tensor:
        first, second = halves(x)
        return torch.tanh(first) + second

    torch.manual_seed(0)
    graph = gg.trace(nn.Sequential(nn.Linear(3, 4), _Calls(both), nn.Linear(4, 2)), torch.randn(2, 3))
    assert targets(graph).count(halves) == 1
    grows(graph, "widen(0, extra=2)", "split(0)")
    stream = io.BytesIO()
    torch.save(graph.module, stream)
    stream.seek(0)
    x = torch.randn(5, 3)
    assert torch.equal(torch.load(stream, weights_only=False)(x), graph.module(x))


def test_an_operator_without_a_derivative_is_verified_without_one() -> None:
    @torch.library.custom_op("mine::no_derivative", mutates_args=())
    def thrice(x: torch.Tensor) -> torch.Tensor:
        return x * 3

    @thrice.register_fake
    def _(x: torch.Tensor) -> torch.Tensor:
        return torch.empty_like(x)

    @axis_rule(thrice)
    def rule(call: Call, x: Value) -> Value:
        return call.output(x.axes, call.same_flow(x))

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), _Calls(thrice), nn.Linear(4, 2))
    graph = gg.trace(model, torch.randn(2, 3))
    grows(graph, "widen(0, extra=2)", "split(0)")
    child = gg.apply(graph, "split(0)")
    with torch.no_grad():
        child.module.get_parameter("2.weight")[0, 0] *= 1 + 1e-5
    assert gg.verify(graph, child).preserved is False
    with pytest.raises(gg.Unsupported, match=r"cannot be differentiated: .* no autograd formula"):
        gg.verify(graph, gg.apply(graph, "split(0)"), modes="all")


def test_what_has_a_rule_is_not_given_another_but_where_it_is_asked_for() -> None:
    def closed(call: Call, input: Value) -> Value:
        call.freeze(input.axes, "for good")
        return call.output(input.axes)

    with pytest.raises(gg.RuleError, match="has a rule already"):
        axis_rule(nn.Tanh)(closed)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    assert gg.trace(model, torch.randn(2, 3)).group("0").frozen is None
    axis_rule(nn.Tanh, replace=True)(closed)
    assert "for good" in str(gg.trace(model, torch.randn(2, 3)).group("0").frozen)


class Doubled(torch.autograd.Function):
    """A function with a backward of its own."""


UNSEEN: list[tuple[object, str]] = [
    ("nothing", "is no method of torch.Tensor"),
    (3, "no graph holds 3 as an operator"),
    (nn.Tanh(), "a module class"),
    (lambda x: x, "a lambda has no name"),
    (torch.Tensor.view, "or the name of a tensor method"),
    (int, "int is no class of modules"),
    (Doubled, "Doubled is an autograd function"),
    (re.compile("").match, "is compiled, and a trace does not see calls of it"),
]


@pytest.mark.parametrize(("target", "message"), UNSEEN, ids=lambda value: str(value)[:20])
def test_what_no_graph_holds_is_refused(target: object, message: str) -> None:
    with pytest.raises(gg.RuleError, match=message):
        axis_rule(target)


def test_a_rule_for_torchs_own_functions_and_methods_is_found() -> None:
    def rule(call: Call, x: Value, other: Value | None = None) -> Value:
        return call.output(x.axes, flow.Pointwise((call.operand(x),)))

    axis_rule(torch.special.bessel_j0, "nextafter")(rule)
    model = nn.Sequential(nn.Linear(3, 4), _Calls(lambda x: torch.special.bessel_j0(x).nextafter(x)), nn.Linear(4, 2))
    graph = gg.trace(model, torch.randn(2, 3))
    assert graph.group("0").frozen is None
    assert isinstance(graph.module, fx.GraphModule)


def _in_place() -> list[str]:
    """Methods in place that have no rule of their own, and so go by that of the plain one."""
    known = {key for key in registered() if isinstance(key, str)}
    names = (name for name in dir(torch.Tensor) if name.endswith("_") and not name.startswith("_"))
    return [name for name in names if name not in known and name[:-1] in known]


ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "addcdiv_": (torch.tensor([2.0]), torch.tensor([3.0])), "cumprod_": (0,), "cumsum_": (0,),
    "index_reduce_": (0, torch.tensor([0, 2]), torch.tensor([0.5, 2.0]), "prod"),
    "scatter_reduce_": (0, torch.tensor([0, 2]), torch.tensor([0.5, 2.0]), "sum"),
    "lerp_": (torch.ones(3), 0.3), "swapaxes_": (0, 0), "swapdims_": (0, 0), "unsqueeze_": (0,),
    "index_fill_": (0, torch.tensor([0, 2]), 0.5), "masked_scatter_": (torch.tensor([True] * 3), torch.ones(3)),
    "index_put_": ((torch.tensor([0, 2]),), torch.tensor([0.5, 2.0])), "mvlgamma_": (1,), "polygamma_": (1,),
    **dict.fromkeys(("float_power_", "floor_divide_"), (2.0,)),
    **dict.fromkeys(("atan2_", "copysign_", "heaviside_", "hypot_", "ldexp_", "xlogy_"), (torch.tensor([2.0]),)),
    **dict.fromkeys(("eq_", "ge_", "gt_", "le_", "lt_", "ne_", "fmod_", "remainder_", "pow_"), (0.5,)),
}  # fmt: skip


@pytest.mark.parametrize("name", _in_place())
def test_a_method_in_place_writes_what_the_plain_one_returns(name: str) -> None:
    x = torch.tensor([0.3, 0.7, 0.2])
    arguments = ARGUMENTS.get(name, ())
    if name == "float_power_":
        x = x.double()
    if name in ("tril_", "triu_", "t_"):
        x = torch.arange(6.0).reshape(2, 3)
    if name in ("addmm_", "addmv_", "baddbmm_"):
        x = torch.arange(4.0).reshape((1, 2, 2) if name == "baddbmm_" else (2, 2))
        arguments = (x + 1, x - 2)
    if name == "addmv_":
        x, arguments = torch.arange(2.0), (torch.arange(4.0).reshape(2, 2), torch.arange(2.0) + 1)
    written, found = x.clone(), getattr(x, name[:-1])(*arguments)
    getattr(written, name)(*arguments)
    torch.testing.assert_close(written, found.to(x.dtype), rtol=0, atol=0, equal_nan=True)


def test_a_network_of_methods_in_place_grows() -> None:
    graph = gg.trace(Between(lambda h, w: h.exp_().add_(1).log_().lerp_(torch.tanh(h), 0.5) @ w.t()), torch.randn(2, 3))
    assert_preserved(graph, gg.apply(graph, "widen(up, extra=2)"))
