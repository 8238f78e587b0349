"""The square itself: every registered rule has a case, and a wrong rule is caught."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from graphgrow.ir import flow as fl
from graphgrow.ir.value import Value
from graphgrow.layers import (
    OneMode,
    require_admitted,
    require_decision,
    require_dtypes,
    require_form,
    require_same,
    require_sizes,
    require_values,
    store_,
)
from graphgrow.ops import losses, registry
from graphgrow.ops.call import Call
from graphgrow.rulecheck.lifted import Mismatch
from graphgrow.rulecheck.square import Square
from tests.ops.probe import Draw, Probe, normal_tensor, op
from tests.ops.square import Case

# Registered targets without a case, and why.
EXEMPT: dict[object, str] = {
    "size": "puts out no tensor; test_sizes uses it",
    "dim": "puts out no tensor; test_sizes uses it",
    "numel": "puts out no tensor; test_sizes uses it",
    "ndimension": "puts out no tensor",
    "nelement": "puts out no tensor",
    torch.numel: "puts out no tensor",
    "element_size": "puts out no tensor",
    "is_signed": "puts out no tensor",
    "is_floating_point": "puts out no tensor",
    "is_complex": "puts out no tensor",
    "get_device": "puts out no tensor",
    "item": "puts out a number of Python's; test_by_values uses it",
    torch.nonzero: "puts out whole numbers; test_by_values uses it",
    "nonzero": "puts out whole numbers; test_by_values uses it",
    len: "puts out no tensor; it counts parts, whose number is then checked",
    torch._assert: "puts out nothing; test_pointwise has it beside another operator",
    require_decision: "puts out nothing; it guards what was decided by sizes",
    require_dtypes: "puts out nothing; it guards what was decided by dtypes",
    require_values: "puts out nothing; it guards what was decided by values of the model's own",
    require_admitted: "puts out nothing; it guards what the model refuses",
    require_same: "puts out nothing; it guards an input that the graph is specialised to",
    OneMode: "puts out nothing; it guards the mode that the graph holds for",
    require_form: "puts out nothing; it guards the form of an input",
    require_sizes: "puts out nothing; it guards the sizes of an input",
    "transformers.models.bloom.modeling_bloom.BloomGelu": "of a package that may be absent; it is gelu by tanh",
    store_: "is made of `buffer.data` by the capture; the rule is that of `copy_`, and test_severed uses it",
    "cuda": "wants a device; the rule is that of `cpu`",
    "float": "rounds; the rule is that of `double`",
    "half": "rounds; the rule is that of `double`",
    "bfloat16": "rounds; the rule is that of `double`",
    F.one_hot: "puts out whole numbers; test_indexing uses it",
    torch.argmax: "puts out whole numbers",
    torch.argmin: "puts out whole numbers",
    "argmax": "puts out whole numbers",
    "argmin": "puts out whole numbers",
    "timm.layers.norm_act.BatchNormAct2d": "timm is no dependency; the rule is that of BatchNorm2d",
    "timm.layers.drop.DropPath": "timm is no dependency; the rule is that of torchvision's StochasticDepth",
}


def _cases() -> list[Case]:
    files = sorted(Path(__file__).parent.glob("test_*.py"))
    modules = [importlib.import_module(f"tests.ops.{file.stem}") for file in files if file.stem != "test_square"]
    return [case for module in modules for case in getattr(module, "CASES", [])]


def test_every_registered_target_has_a_case() -> None:
    covered = {target for case in _cases() for target in case.targets}
    lossy = {target for target, rule in registry.registered().items() if rule is losses.loss}  # test_losses has them
    missing = set(registry.registered()) - covered - set(EXEMPT) - lossy
    assert not missing, f"no case in tests/ops for {sorted(map(str, missing))}"
    assert set(EXEMPT) <= set(registry.registered()), "an exemption for what is not registered"


def test_every_file_of_rules_has_a_test() -> None:
    rules = {
        path.stem for path in Path(registry.__file__).parent.glob("*.py")
    } - {"__init__", "registry", "analysis", "call"}  # fmt: skip
    assert rules <= {path.stem.removeprefix("test_") for path in Path(__file__).parent.glob("test_*.py")}


# -- wrong rules ---------------------------------------------------------------------------------------------


def pointwise_softmax(call: Call, input: Value, dim: Any = None) -> Value:
    """Wrong: each unit of a softmax depends on all the others."""
    return call.output(input.axes, fl.Pointwise((call.operand(input),)))


def zero_keeping_sigmoid(call: Call, input: Value) -> Value:
    """Wrong: sigmoid(0) is 1/2."""
    return call.output(input.axes, fl.Pointwise((call.operand(input),), zero=True))


def linear_relu(call: Call, input: Value) -> Value:
    """Wrong: the copies of a share do not add up behind a relu."""
    return call.output(input.axes, fl.Same(call.operand(input)))


def fastest_first_view(call: Call, input: Value, first: int, second: int) -> Value:
    """Wrong: the axis is cut into factors of the other order."""
    inner, outer = call.factor(input.axes[0], (second, first))
    call.literal(("args", 1), outer)
    call.literal(("args", 2), inner)
    return call.output((outer, inner), call.same_flow(input))


def untouched_sum(call: Call, input: Value, dim: int = 0) -> Value:
    """Wrong: a sum over units sees the new ones."""
    return call.output(input.axes[:dim] + input.axes[dim + 1 :], fl.Same(call.operand(input, drop=[dim])))


def unrelated_parts(call: Call, tensors: list[Value], dim: int = 0) -> Value:
    """Wrong: the parts are concatenated in the other order."""
    from graphgrow.ir.terms import Concat

    joined = Concat(tuple(value.axes[0] for value in reversed(tensors)))
    operands = tuple(fl.Operand(value, (0,)) for value in reversed(tensors))
    return call.output((joined,), fl.Stack(operands))


def forgetful_layer_norm(call: Call, input: Value, shape: Any, weight: Value, bias: Value) -> Value:
    """Wrong: statistics over the axis are not stated."""
    call.literal(("args", 1), input.axes[-1], as_tuple=True)
    for parameter in (weight, bias):
        call.same(input.axes[-1], parameter.axes[0])
    operands = tuple(map(call.operand, (input, weight, bias)))
    return call.output(input.axes, fl.Pointwise(operands))


def forgetful_noise(call: Call, input: Value) -> Value:
    """Wrong: a slope of its own for each unit in train mode is not stated."""
    return call.output(input.axes, fl.Pointwise((call.operand(input),), zero=True))


def _layer_norm(draw: Draw) -> nn.Module:
    sources = {"x": normal_tensor(draw, 3, 4), "weight": normal_tensor(draw, 4), "bias": normal_tensor(draw, 4)}
    return Probe(lambda m: op(F.layer_norm, m.x, (4,), m.weight, m.bias), sources)


def _pair(draw: Draw) -> nn.Module:
    return Probe(lambda m: torch.cat([m.x, m.y]), {"x": normal_tensor(draw, 3), "y": normal_tensor(draw, 2)})


def _one(run: Callable[[Any], Any], *shape: int, module: nn.Module | None = None) -> Callable[[Draw], nn.Module]:
    return lambda draw: Probe(run, {"x": normal_tensor(draw, *shape)}, {} if module is None else {"op": module})


WRONG: list[tuple[object, Callable[..., Any], Callable[[Draw], nn.Module]]] = [
    (F.softmax, pointwise_softmax, _one(lambda m: op(F.softmax, m.x, dim=1), 2, 4)),
    (torch.sigmoid, zero_keeping_sigmoid, _one(lambda m: torch.sigmoid(m.x), 2, 3)),
    (torch.relu, linear_relu, _one(lambda m: op(torch.relu, m.x), 2, 3)),
    ("view", fastest_first_view, _one(lambda m: m.x.view(3, 2), 6)),
    ("view", fastest_first_view, _one(lambda m: m.x.view(2, 2), 4)),
    (torch.sum, untouched_sum, _one(lambda m: op(torch.sum, m.x, 0), 2, 3)),
    (torch.cat, unrelated_parts, _pair),
    (F.layer_norm, forgetful_layer_norm, _layer_norm),
    (nn.RReLU, forgetful_noise, _one(lambda m: m.op(m.x), 3, 3, module=nn.RReLU())),
]


@pytest.mark.parametrize(("target", "wrong", "build"), WRONG)
def test_a_wrong_rule_is_caught(
    target: object,
    wrong: Callable[..., Any],
    build: Callable[[Draw], nn.Module],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Square.of(build(_middle), (target,)).check_all(_middle)
    monkeypatch.setitem(registry._RULES, target, wrong)
    square = Square.of(build(_middle), (target,))
    assert square.spaces(), "the wrong rule must not be refused, else nothing is shown"
    with pytest.raises(Mismatch, match=r"off by|shape|units"):
        square.check_all(_middle)


def test_a_table_that_misses_an_admission_is_caught() -> None:
    relu = _one(lambda m: op(torch.relu, m.x), 2, 3)
    full = "free>free zero>zero mean>free copy>copy"
    Case((torch.relu,), relu, {"x.0": full, "x.1": full}).check(_middle)
    for table in ("free>free mean>free copy>copy", f"{full} share>share"):
        with pytest.raises(AssertionError, match="the rule admits"):
            Case((torch.relu,), relu, {"x.0": full, "x.1": table}).check(_middle)
    with pytest.raises(AssertionError, match="growable axes"):
        Case((torch.relu,), relu, {"x.0": full}).check(_middle)


def _middle(low: int, high: int) -> int:
    return (low + high) // 2
