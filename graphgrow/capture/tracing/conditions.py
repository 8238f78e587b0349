"""What a forward decides by the values of tensors, not by their shapes.

A graph has one path. It is the model's for all inputs where no input has a part in the value, which a node then checks
in every call; and where the other path ends in an error that the model raises: a node refuses what the model refuses.
"""

from __future__ import annotations

import dis
import traceback
import types
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import fx

from graphgrow.capture.graphs.writes import storages_of
from graphgrow.capture.model.frames import is_users, models_line
from graphgrow.capture.stand_ins import of_torch
from graphgrow.capture.tracing.known import Holder, known_value, memory_behind
from graphgrow.errors import CaptureError, TimeBudgetError
from graphgrow.layers import require_admitted, require_values

Outcomes = Sequence[tuple[bool, str]]
"""Of each condition by values, in their order: the truth that the model goes on with, the error behind the other."""

Traced = TypeVar("Traced")
_CHECK = torch._check_with.__code__
_CHECKING = (_CHECK.co_filename, of_torch.__file__)
_MOST = 32  # conditions in one forward, each of which takes up to three traces


class Undecided(CaptureError):
    """A condition by values of which it is not known which way the model goes.

    Attributes:
        asking: the code that decides by it.
    """

    asking: types.CodeType | None = None


class Recorder(Holder, Protocol):
    """What a tracer offers here, besides."""

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """A proxy of a node."""
        ...

    def create_proxy(self, kind: str, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> fx.Proxy:
        """Record one operator."""
        ...


class Conditions:
    """The conditions of one trace.

    Args:
        tracer: records the checks.
        outcomes: of the conditions in which inputs have a part, as far as they are known.
    """

    def __init__(self, tracer: Recorder, outcomes: Outcomes) -> None:
        self._tracer, self._outcomes, self._asked = tracer, outcomes, 0
        self._decided: dict[fx.Node, str] = {}  # by value of the model's own, the line that decides by it

    def settled(self, numbers: Iterable[fx.Node]) -> bool:
        """Whether inputs have no part in the tensors that some nodes read numbers off, checked in every call."""
        return all(self.known(self._tracer.proxy(number.all_input_nodes[0])) is not None for number in numbers)

    def known(self, value: fx.Proxy) -> torch.Tensor | None:
        """The value of a tensor in which no input has a part, from now on checked in every call; else None."""
        found = known_value(value.node, self._tracer)
        if found is not None and value.node not in self._decided:
            self._decided[value.node] = line = _line()
            self._tracer.create_proxy("call_function", require_values, (value, found.tolist(), line), {})
        return found

    def decide(self, value: fx.Proxy, use: str) -> Any:
        """What a tensor, or a number that inputs have a part in, is where the model asks for its number or its truth.

        Raises:
            CaptureError: if that depends on the inputs; an `Undecided` one if it is a truth.
        """
        name, of_tensor = value.node.name, isinstance(value.node.meta["value"], torch.Tensor)
        found = self.known(value) if of_tensor else None
        if found is not None:
            return found
        condition = use == "a condition"
        if condition and self._asked < len(self._outcomes):
            admitted, refusal = self._outcomes[self._asked]
            self._asked += 1
            self.require(value, admitted, refusal)
            return admitted
        cause = f"of the tensor `{name}`, not on its shape" if of_tensor else f"of a tensor, by the number `{name}`"
        error = (Undecided if condition else CaptureError)(
            f"{use} depends on the values {cause}; "
            "a graph has one path for all inputs: use torch.where, or mark the submodule as a leaf"
        )
        if isinstance(error, Undecided):
            frames = (frame for frame, _ in traceback.walk_stack(None) if is_users(frame.f_code.co_filename))
            error.asking = next((frame.f_code for frame in frames), None)
        raise error

    def require(self, value: fx.Proxy, admitted: bool, refusal: str) -> None:
        """Let the graph refuse the values of which a condition has not come out as it has to."""
        self._tracer.create_proxy("call_function", require_admitted, (value, admitted, _line(), refusal), {})

    def refuse_overwritten(self) -> None:
        """Look, when the trace has ended, whether the forward overwrites what it has decided by.

        Raises:
            CaptureError: if so: the next call may decide otherwise.
        """
        written = storages_of([write.target.meta["value"] for write in self._tracer.writes.values()])
        for node, line in self._decided.items():
            if written & memory_behind(node, self._tracer):
                raise CaptureError(
                    f"at {line} the forward decides by `{node.name}`, which is made of a buffer that it overwrites; a "
                    "graph has one path for all calls: capture the model when the buffer is settled, or mark the "
                    "submodule as a leaf"
                )


def deciding(trace: Callable[[Outcomes], Traced]) -> Traced:
    """Trace a forward, again with each outcome of its conditions behind which the other one is an error of its own.

    Args:
        trace: records the forward with some outcomes given.

    Raises:
        Undecided: if the model goes on either way.
    """
    outcomes: list[tuple[bool, str]] = []
    while True:
        try:
            return trace(outcomes)
        except Undecided as undecided:
            refusals = {truth: _refusal(trace, [*outcomes, (truth, "")], undecided) for truth in (True, False)}
            refused = [truth for truth, words in refusals.items() if words]
            if len(refused) != 1 or len(outcomes) == _MOST:
                raise
            outcomes.append((not refused[0], refusals[refused[0]]))


def _refusal(trace: Callable[[Outcomes], Any], outcomes: Outcomes, undecided: Undecided) -> str:
    """The error that the deciding code itself raises, in words, where one more outcome is given; empty if none."""
    try:
        trace(outcomes)
    except TimeBudgetError:
        raise
    except Exception as error:  # noqa: BLE001  # the model's own, whatever its class
        for own in (error, error.__context__):  # of the last attempt, and of the one in front of it
            raised = _raised_by(own) if isinstance(own, Exception) else None
            if raised is not None and raised == undecided.asking:  # each trace has code objects of its own
                return f"{type(own).__name__}: {own}"[:200]
    return ""


def _raised_by(error: Exception) -> types.CodeType | None:
    """The code whose own statement (`raise`, `assert`, `torch._check`) raises an error; None if what it calls does."""
    frames = list(traceback.walk_tb(error.__traceback__))
    codes = [frame.f_code for frame, _ in frames]
    if codes and codes[-1] is _CHECK:  # not one that an operator of torch's makes of its arguments
        while codes and codes[-1].co_filename in _CHECKING:
            codes.pop()
        return codes[-1] if codes else None
    if not frames or codes[-1].co_code[frames[-1][0].f_lasti] != dis.opmap["RAISE_VARARGS"]:
        return None
    return codes[-1]


def _line() -> str:
    path, _, number = models_line().rpartition(":")
    return f"{Path(path).name}:{number}"
