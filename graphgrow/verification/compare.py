"""Comparing two graphs: node by node with what really arrives, outputs, and buffers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from graphgrow.capture.inplace import is_inplace
from graphgrow.ir.editor import Editor
from graphgrow.verification.places import Counterparts, Places, project
from graphgrow.verification.stepper import Stepper, execute
from graphgrow.verification.verdict import Check

_ROWWISE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
LOCAL_TOLERANCE = 1e-12  # float64, relative to the local magnitude |W| |x| + |b| (or the largest element seen)


@dataclass
class Worst:
    """The element nearest to its bound, over several comparisons."""

    error: float = 0.0
    bound: float = 0.0
    where: str = "nothing"
    passed: bool = True
    ratio: float = -1.0
    first_failure: str | None = field(default=None)

    def see(self, error: torch.Tensor, limit: torch.Tensor, where: str) -> None:
        """Take in errors and their limits; a NaN on either side is a failure."""
        if error.numel() == 0:
            return
        limit = limit.expand_as(error)
        passed = bool((error <= limit).all())
        ratio = torch.where(limit > 0, error / limit, torch.where(error > 0, torch.inf, 0.0))
        ratio = torch.where(torch.isnan(ratio), torch.inf, ratio)
        worst = int(ratio.argmax())
        if not passed and self.first_failure is None:
            self.first_failure = where
        if float(ratio.flatten()[worst]) > self.ratio or (self.passed and not passed):
            self.ratio = float(ratio.flatten()[worst])
            self.error, self.bound = float(error.flatten()[worst]), float(limit.flatten()[worst])
            self.where = where
        self.passed = self.passed and passed

    def check(self, mode: str, what: str) -> Check:
        """The comparison as a record."""
        return Check(mode, what, self.error, self.bound, self.where, self.passed)


def run_pair(
    before: fx.GraphModule,
    after: fx.GraphModule,
    inputs: tuple[tuple[Any, ...], dict[str, Any]],
    counterparts: Counterparts,
    worst: Worst,
) -> tuple[Any, Any]:
    """Run two graphs side by side, checking each matching node on what really arrives there.

    At a node that both have, the parent's operator is applied to the child's inputs, cut down to the old units, and
    must give the child's output, cut down likewise: the commuting square of that node, whatever came before.

    Args:
        before: the parent, in float64.
        after: the child, in float64, in the same mode.
        inputs: positional and keyword inputs.
        counterparts: how the nodes of both belong together.
        worst: takes in the errors.

    Returns:
        The outputs of both.
    """
    operators = Editor(before).finish()  # buffers of its own: batch norms are run twice
    places, shared = counterparts.places, counterparts.shared
    parents = {node.name: node for node in before.graph.nodes if node.name not in counterparts.created}
    held: dict[str, Any] = {}  # values that another node carries on, until that node has run
    first, second = Stepper(before, *inputs), Stepper(after, *inputs)
    fed: set[str] = set()
    order = iter(before.graph.nodes)
    outputs: list[Any] = []
    for child in after.graph.nodes:
        if child.name in parents:
            _advance(first, order, child.name, outputs)
        parent = parents.get(child.name)
        arrived = None
        if parent is not None and parent.op.startswith("call") and child.name not in shared:
            arrived = _arrivals(parent, first, second, counterparts, fed, is_inplace(parent, before))
        value = second.run(child)
        if parent is not None and child.name in counterparts.moved:
            held[child.name] = value.clone() if isinstance(value, torch.Tensor) else value
        for origin in counterparts.carried_by(child.name) & held.keys():
            own = held.pop(origin)
            if not {origin, child.name} & shared:
                own, carried = project(own, places.get(origin)), project(value, counterparts.arriving.get(origin))
                _same_value(own, carried, child.name, worst)
        if child.op == "placeholder" or any(used.name in fed for used in child.all_input_nodes):
            fed.add(child.name)
        if parent is not None and arrived is not None and child.name in fed:
            _square(operators, after, parent, arrived, value, places, worst)
        if child.op == "output":
            return outputs[-1], value
        second.release(child)
        if parent is not None:
            first.release(parent)
    raise AssertionError("a graph without an output")


def _advance(stepper: Stepper, order: Any, name: str, outputs: list[Any]) -> None:
    """Run the parent up to a node; nodes that the child no longer has are run on the way."""
    if name in stepper.values:
        return
    for node in order:
        value = stepper.run(node)
        if node.op == "output":
            outputs.append(value)
        if node.name == name:
            return


@dataclass
class _Arrivals:
    """What the parent's operator is applied to: the child's inputs cut down to the old units."""

    args: Any
    kwargs: Any
    cut: list[torch.Tensor]
    largest: torch.Tensor  # the largest element that arrives in the child, its new units included
    own: Any  # the parent's output, where the very same bits arrive; else None


def _same_value(before: Any, after: Any, where: str, worst: Worst) -> None:
    """A node that carries another's value on must have it on the old units, within the local tolerance.

    Both are given cut down to these: the new units of a branch that was closed may write something of their own.
    """
    if not isinstance(before, torch.Tensor) or not isinstance(after, torch.Tensor) or before.shape != after.shape:
        worst.see(torch.tensor([torch.inf]), torch.tensor([0.0]), f"{where} (shape)")
    elif before.is_floating_point() and before.numel():
        limit = LOCAL_TOLERANCE * before.detach().abs().nan_to_num(posinf=0.0).max()
        worst.see(*_errors(after, before, limit), where)


def _arrivals(
    node: fx.Node, first: Stepper, second: Stepper, counterparts: Counterparts, fed: set[str], fresh: bool
) -> _Arrivals | None:
    """The inputs of a node as they arrive in the child, None where they cannot be laid beside the parent's.

    What does not stem from the model's inputs (parameters, sizes) is the parent's own. With `fresh` the tensors are
    copies, for operators that overwrite them.
    """
    cut: list[torch.Tensor] = []
    largest = torch.zeros((), dtype=torch.float64)
    usable, same = True, not fresh

    def argument(used: fx.Node) -> Any:
        nonlocal usable, same, largest
        carrier = counterparts.carrier(used.name)
        arrived = second.values.get(carrier)
        if carrier not in fed or not isinstance(arrived, torch.Tensor):
            usable = usable and not (carrier in fed and isinstance(arrived, (tuple, list)))
            own = first.values.get(used.name)
            return own.clone() if fresh and isinstance(own, torch.Tensor) else own
        usable = usable and not {used.name, carrier} & counterparts.shared
        value = project(arrived, counterparts.arriving.get(used.name))
        value = value.clone() if fresh else value
        same = same and torch.equal(value, first.values[used.name])
        if arrived.is_floating_point() and arrived.numel():
            largest = torch.maximum(largest.to(arrived), arrived.detach().abs().nan_to_num(posinf=0.0).max())
        cut.append(value)
        return value

    args, kwargs = fx.node.map_arg(node.args, argument), fx.node.map_arg(node.kwargs, argument)
    own = first.values[node.name] if same else None
    return _Arrivals(args, kwargs, cut, largest, own) if usable else None


def _square(
    operators: nn.Module, grown: nn.Module, node: fx.Node, arrived: _Arrivals, value: Any, places: Places, worst: Worst
) -> None:
    if not isinstance(value, torch.Tensor) or not value.is_floating_point():
        return
    expected = execute(operators, node, arrived.args, arrived.kwargs) if arrived.own is None else arrived.own
    actual = project(value, places.get(node.name))
    if not isinstance(expected, torch.Tensor):
        return
    if expected.shape != actual.shape:
        worst.see(torch.tensor([torch.inf]), torch.tensor([0.0]), f"{node.name} (shape)")
        return
    if torch.equal(expected, actual):  # the same bits need no bound
        worst.see(torch.zeros(1), torch.zeros(1), node.name)
        return
    magnitude = _magnitude(operators, node, expected, arrived.cut)
    reread = _rows(grown, node, arrived.largest)
    if reread is not None:  # the child's own sum may be the longer one: fresh weights on units that are zero
        kept = places.get(node.name, {}).get(_channel(value, grown, node))
        reread = reread if kept is None else reread[kept]
        magnitude = torch.maximum(magnitude, reread.reshape(magnitude.shape))
    worst.see(*_errors(actual, expected, LOCAL_TOLERANCE * magnitude), node.name)


def _errors(actual: torch.Tensor, expected: torch.Tensor, limit: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Absolute errors; two equal infinities, or NaN on both sides, agree."""
    same = (actual == expected) | (torch.isnan(actual) & torch.isnan(expected))
    error = torch.where(same, 0.0, (actual - expected).abs())
    return error, torch.where(torch.isnan(limit), 0.0, limit).expand_as(error)


def _magnitude(
    operators: nn.Module, node: fx.Node, expected: torch.Tensor, seen: Sequence[torch.Tensor]
) -> torch.Tensor:
    """|W| |x| + |b|, with the largest |x| for each output channel, where the operator is a linear map.

    For any other operator it is the largest element among inputs and output.
    """
    largest = [t.detach().abs().nan_to_num(posinf=0.0).max() for t in (expected, *seen) if t.is_floating_point()]
    rows = _rows(operators, node, largest[-1])
    if rows is None:
        return torch.stack(largest).max()
    return rows.reshape(-1, *[1] * (expected.dim() - 1 - _channel(expected, operators, node)))


def _rows(module: nn.Module, node: fx.Node, largest: torch.Tensor) -> torch.Tensor | None:
    """The sum |W| max|x| + |b| for each output channel, where the node calls a linear map."""
    called = module.get_submodule(str(node.target)) if node.op == "call_module" else None
    if not isinstance(called, _ROWWISE):
        return None
    rows = called.weight.detach().abs().flatten(1).sum(1) * largest
    return rows if called.bias is None else rows + called.bias.detach().abs()


def _channel(output: torch.Tensor, module: nn.Module, node: fx.Node) -> int:
    """The axis of output channels of a linear map: the last, or the one in front of the positions."""
    weight = module.get_parameter(f"{node.target}.weight")
    return output.dim() - 1 - max(weight.dim() - 2, 0)


def compare_outputs(before: Any, after: Any, noise: Any, worst: Worst, slack: float, unit: float) -> None:
    """Compare nested outputs; the limit is `slack` times the noise of `before` plus a few units of the largest.

    Args:
        before: outputs of the reference.
        after: outputs under test.
        noise: outputs of the reference perturbed by one ulp.
        worst: takes in the errors.
        slack: multiple of the noise that is admitted.
        unit: what is admitted besides, relative to the largest element.
    """
    first, second, third = (pytree.tree_leaves_with_path(item) for item in (before, after, noise))
    if [path for path, _ in first] != [path for path, _ in second]:
        worst.see(torch.tensor([torch.inf]), torch.tensor([0.0]), "output (structure)")
        return
    for (path, a), (_, b), (_, c) in zip(first, second, third, strict=True):
        where = f"output{pytree.keystr(path)}"
        if not isinstance(a, torch.Tensor):
            worst.see(torch.tensor([0.0 if a == b else torch.inf]), torch.tensor([0.0]), where)
        elif a.shape != b.shape:
            worst.see(torch.tensor([torch.inf]), torch.tensor([0.0]), f"{where} (shape)")
        elif not a.is_floating_point():
            worst.see((a != b).double(), torch.zeros(()), where)
        else:
            a, b, c = a.detach().double(), b.detach().double(), c.detach().double()
            scale = a.abs().nan_to_num(posinf=0.0).max()
            noisy = (a - c).abs().nan_to_num(posinf=0.0).max()
            worst.see(*_errors(b, a, slack * noisy + unit * scale), where)


def compare_buffers(
    before: nn.Module,
    after: nn.Module,
    noise: nn.Module,
    places: Mapping[str, Any],
    worst: Worst,
    slack: float,
    unit: float,
) -> None:
    """Compare the buffers of two modules after a step in train mode, at the places of the old units.

    The limit is that of `compare_outputs`; `noise` is the reference perturbed by one ulp, after the same step.
    """
    theirs, noisy = dict(after.named_buffers()), dict(noise.named_buffers())
    for name, mine in before.named_buffers():
        if name not in theirs:
            continue
        other = project(theirs[name], places.get(name)).double()
        if mine.shape != other.shape:
            worst.see(torch.tensor([torch.inf]), torch.tensor([0.0]), f"{name} (shape)")
        elif mine.numel():
            exact = mine.double()
            moved = (exact - noisy[name].double()).abs().nan_to_num(posinf=0.0).max()
            worst.see(*_errors(other, exact, slack * moved + unit * exact.abs().max()), name)
