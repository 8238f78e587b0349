"""Two graphs side by side: at each node that both have, the commuting square on what really arrives there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from graphgrow.capture.graphs.writes import storages_of
from graphgrow.ops.sizes import only_measured
from graphgrow.verification.alike import Alike, Operands
from graphgrow.verification.magnitude import channel_axis, magnitude, row_sums
from graphgrow.verification.places import Counterparts, project
from graphgrow.verification.runner import Runner
from graphgrow.verification.worst import Worst, errors, largest

LOCAL_TOLERANCE = 1e-12  # float64, relative to the local magnitude |W| |x| + |b| (or the largest element seen)


def run_pair(
    first: Runner, second: Runner, counterparts: Counterparts, worst: Worst, tolerance: float = LOCAL_TOLERANCE
) -> tuple[Any, Any]:
    """Run two graphs side by side, checking each matching node on what really arrives there.

    At a node that both have, the parent's operator is applied to the child's inputs, cut down to the old units, and
    must give the child's output, cut down likewise: the commuting square of that node, whatever came before. Where
    operator, numbers and inputs of a node are the parent's to the bit, its value is too, and it is not run again.

    Args:
        first: the parent, in float64.
        second: the child, in float64, in the same mode.
        counterparts: how the nodes of both belong together.
        worst: takes in the errors.
        tolerance: relative to the local magnitude; 0 wants the same bits.

    Returns:
        The outputs of both.

    Raises:
        NodeFails: if a node of either cannot be run.
    """
    return _Pair(first, second, counterparts, worst, tolerance).run()


def run_beside(first: Runner, second: Runner, counterparts: Counterparts) -> tuple[Any, Any]:
    """Run two graphs side by side without comparing anything; what both compute alike is computed once.

    Raises:
        NodeFails: if a node of either cannot be run.
    """
    return _Pair(first, second, counterparts, None, 0.0).run()


@dataclass
class _Arrivals:
    """What the parent's operator is applied to: the child's inputs cut down to the old units."""

    args: Any
    kwargs: Any
    cut: list[torch.Tensor]
    whole: list[torch.Tensor]  # the same with the new units
    own: Any  # the parent's output, where the very same bits arrive; else None


class _Pair:
    """Both graphs on their way, and the values that wait for a counterpart."""

    def __init__(
        self, first: Runner, second: Runner, counterparts: Counterparts, worst: Worst | None, tolerance: float
    ) -> None:
        self._first, self._second, self._counterparts = first, second, counterparts
        self._compares, self._worst, self._tolerance = worst is not None, worst or Worst(), tolerance
        nodes = first.module.graph.nodes
        self._parents = {node.name: node for node in nodes if node.name not in counterparts.created}
        self._order: Iterator[fx.Node] = iter(nodes)
        self._held: dict[str, Any] = {}  # values that another node carries on, until that node has run
        self._fed: set[str] = set()  # nodes of the child that depend on its inputs
        self._output: Any = None
        self._alike = Alike(first.module, second.module, counterparts)
        self._unwritten: dict[str, Any] = {}  # the parent's operands of the present node, before it wrote into one

    def run(self) -> tuple[Any, Any]:
        """All nodes, the child's leading; returns the outputs of both."""
        for child in self._second.module.graph.nodes:
            parent = self._parents.get(child.name)
            now = parent is not None and self._advance(parent)
            operands = self._alike.operands(parent, child) if parent is not None else None
            taken = parent is not None and self._take_over(parent, child, operands, now)
            comparable = parent is not None and self._comparable(parent)
            alike = comparable and not taken and operands is not None and self._applies_alike(child, operands)
            wanted = parent is not None and comparable and not taken and not alike
            arrived = self._arrivals(parent) if parent is not None and wanted else None
            value = self._second.values[child.name] if taken else self._second.run(child)
            self._see_carried(child.name, value, parent is not None)
            if child.op == "placeholder" or any(used.name in self._fed for used in child.all_input_nodes):
                self._fed.add(child.name)
            if comparable and (taken or alike) and child.name in self._fed and _is_floating(value):
                self._worst.same(child.name)
            elif parent is not None and arrived is not None and child.name in self._fed:
                self._square(parent, child, arrived, value)
            if parent is not None and not taken and child.name not in self._counterparts.places:
                self._alike.note(parent.name, child.name, self._first.values.get(parent.name), value)
            if child.op == "output":
                return self._output, value
            self._second.release(child)
            if parent is not None:
                self._first.release(parent)
        raise AssertionError("a graph without an output")

    def _comparable(self, parent: fx.Node) -> bool:
        if not self._compares or not parent.op.startswith("call") or only_measured(parent):
            return False
        return parent.name not in self._counterparts.shared

    def _applies_alike(self, child: fx.Node, operands: Operands) -> bool:
        """Whether the child applies the parent's operator to what `_arrivals` gives: the square is that node again.

        So it is behind a change, where no axis has grown: what arrives differs in its last bits, and nothing else does.
        """
        counterparts, layer = self._counterparts, None
        if child.op == "call_module":
            layer = self._second.module.get_submodule(str(child.target))
        counts = layer is not None and layer.training and next(layer.buffers(), None) is not None
        if counts or child.name in self._alike.written[1] or self._first.numbers is not self._second.numbers:
            return False
        for read, arriving in operands:
            if {read, arriving} & counterparts.shared:
                return False
            if arriving not in self._fed:  # the parent's own is taken
                same = self._alike.agree(read, arriving)
            else:
                whole = not counterparts.arriving.get(read) and isinstance(self._second.values[arriving], torch.Tensor)
                same = whole and counterparts.carrier(read) == arriving
            if not same:
                return False
        return True

    def _take_over(self, parent: fx.Node, child: fx.Node, operands: Operands | None, now: bool) -> bool:
        """Give the child the parent's value, where it would compute the same and the value is a tensor of its own.

        Statistics are counted in train mode, by each for itself; what is overwritten or a view is run again as well.
        """
        value = self._first.values.get(parent.name)
        theirs = self._second.input(child) if child.op == "placeholder" else None
        if not self._alike.at(parent, child, operands, value, theirs) or not now or not child.op.startswith("call"):
            return False
        if self._first.numbers is not self._second.numbers:
            return False
        if not isinstance(value, torch.Tensor) or child.name in self._alike.written[1]:
            return False
        if child.op == "call_module":
            layer = self._second.module.get_submodule(str(child.target))
            if layer.training and next(layer.buffers(), None) is not None:
                return False
        read = [self._first.values[used.name] for used in parent.all_input_nodes]
        if storages_of(value) & storages_of(read):
            return False
        self._second.values[child.name] = value.clone() if self._alike.writes else value
        return True

    def _advance(self, wanted: fx.Node) -> bool:
        """Run the parent up to a node, and those that the child no longer has on the way; whether it was run now."""
        self._unwritten = {}
        if wanted.name in self._first.values:
            return False
        for node in self._order:
            if node is wanted and node.name in self._alike.written[0]:
                for used in node.all_input_nodes:
                    own = self._first.values[used.name]
                    self._unwritten[used.name] = own.clone() if isinstance(own, torch.Tensor) else own
            value = self._first.run(node)
            if node.op == "output":
                self._output = value
            if node is wanted:
                return True
        return False

    def _see_carried(self, name: str, value: Any, is_old: bool) -> None:
        """Where this node carries others' values to their readers, compare it with those, on the old units."""
        counterparts = self._counterparts
        if is_old and name in counterparts.moved:
            self._held[name] = value.clone() if isinstance(value, torch.Tensor) else value
        for origin in counterparts.carried_by(name) & self._held.keys():
            own = self._held.pop(origin)
            self._alike.note(origin, name, own, value)
            if self._compares and not {origin, name} & counterparts.shared:
                own, carried = counterparts.both(origin, own, value)
                _same_value(own, carried, name, self._worst, self._tolerance)

    def _arrivals(self, node: fx.Node) -> _Arrivals | None:
        """The inputs of a node as they arrive in the child, None where they cannot be laid beside the parent's.

        What does not stem from the model's inputs (parameters, sizes) is the parent's own. For operators that
        overwrite their inputs the tensors are copies.
        """
        first, second, counterparts = self._first.values, self._second.values, self._counterparts
        fresh = node.name in self._alike.written[0]
        cut: list[torch.Tensor] = []
        whole: list[torch.Tensor] = []
        usable, same = True, not fresh

        def argument(used: fx.Node) -> Any:
            nonlocal usable, same
            carrier = counterparts.carrier(used.name)
            arrived = second.get(carrier)
            if carrier not in self._fed or not isinstance(arrived, torch.Tensor):
                usable = usable and not (carrier in self._fed and isinstance(arrived, (tuple, list)))
                usable = usable and (not fresh or used.name in self._unwritten)
                return self._unwritten.get(used.name) if fresh else first.get(used.name)
            usable = usable and not {used.name, carrier} & counterparts.shared
            value = project(arrived, counterparts.arriving.get(used.name), first[used.name])
            value = value.clone() if fresh else value
            same = same and torch.equal(value, first[used.name])
            whole.append(arrived.clone() if fresh else arrived)
            cut.append(value)
            return value

        args, kwargs = fx.node.map_arg(node.args, argument), fx.node.map_arg(node.kwargs, argument)
        own = first[node.name] if same else None
        return _Arrivals(args, kwargs, cut, whole, own) if usable else None

    def _square(self, node: fx.Node, child: fx.Node, arrived: _Arrivals, value: Any) -> None:
        if not _is_floating(value):
            return
        expected = arrived.own
        if expected is None:
            expected = self._first.apply(node, arrived.args, arrived.kwargs)
        if not isinstance(expected, torch.Tensor):
            return
        actual = project(value, self._counterparts.places.get(node.name), expected)
        if expected.shape != actual.shape:
            self._worst.differ(f"{node.name} (shape)")
        elif torch.equal(expected, actual):  # the same bits need no bound
            self._worst.same(node.name)
        else:
            self._see_difference(node, child, arrived, expected, actual, value)

    def _see_difference(
        self,
        node: fx.Node,
        child: fx.Node,
        arrived: _Arrivals,
        expected: torch.Tensor,
        actual: torch.Tensor,
        value: torch.Tensor,
    ) -> None:
        error, limit = errors(actual, expected, self._tolerance * largest(expected))
        if self._tolerance and not bool(
            (error <= limit).all()
        ):  # only then is it worth to find the true magnitude, which is larger
            bound = magnitude(self._first, node, expected, arrived.args, arrived.kwargs, arrived.cut)
            most = [largest(tensor) for tensor in arrived.whole if tensor.is_floating_point()]
            reread = row_sums(self._second, child, torch.stack(most).max() if most else torch.zeros(()))
            if reread is not None:  # the child's own sum may be the longer one: fresh weights on units that are zero
                axis = channel_axis(value, self._second, child)
                kept = self._counterparts.places.get(node.name, {}).get(axis)
                reread = reread[kept.clamp(min=0)] if isinstance(kept, torch.Tensor) else reread
                bound = torch.maximum(bound, reread.reshape(-1, *[1] * (value.dim() - 1 - axis)))
            error, limit = errors(actual, expected, self._tolerance * bound)
        self._worst.see(error, limit, node.name)


def _is_floating(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def _same_value(before: Any, after: Any, where: str, worst: Worst, tolerance: float) -> None:
    """A node that carries another's value on must have it on the old units, within the local tolerance.

    Both are given cut down to these: the new units of a branch that was closed may write something of their own.
    """
    if not isinstance(before, torch.Tensor) or not isinstance(after, torch.Tensor) or before.shape != after.shape:
        worst.differ(f"{where} (shape)")
    elif before.is_floating_point() and before.numel():
        worst.see(*errors(after, before, tolerance * largest(before)), where)
