"""The trial of a graph: model and graph run side by side on the example inputs, and must do the same.

What a trace can get wrong without an error shows here: in the answers of both, in eval and in train mode, and in what
they leave behind in the model's buffers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from graphgrow.capture.model.agreement import disagreement
from graphgrow.capture.model.clock import Clock
from graphgrow.capture.model.outputs import leaves_of, register_classes
from graphgrow.capture.model.parametrised import computed_weights
from graphgrow.capture.model.running import place_of, run
from graphgrow.capture.model.untouched import State
from graphgrow.errors import CaptureError
from graphgrow.ir.hooks import is_register

Modes = frozenset[str]


class Trial:
    """What a model does on its example inputs, run twice in a row.

    Args:
        model: put back into its state after each run.
        args: positional example inputs.
        kwargs: keyword example inputs.
        state: of the model.
        clock: times the steps.

    Attributes:
        clock: as given.
        answer: what the model returns in eval mode.
        notes: what a user should know of it.

    Raises:
        CaptureError: if the model fails, in eval mode, or returns no tensor.
    """

    def __init__(
        self,
        model: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        state: State,
        clock: Clock | None = None,
    ) -> None:
        self._model, self._example, self._state = model, (args, kwargs), state
        self.clock = clock or Clock()
        self.notes: list[str] = []
        with self.clock.step("running the model"):
            self._run(args, kwargs)

    def _run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        model, state = self._model, self._state
        try:
            self.answer, random = run(model, args, kwargs)
        except Exception as error:  # any error of the user's own code, passed on with its place
            state.restore()
            raise _failure(model, args, kwargs, error) from error
        register_classes(self.answer)
        if not any(isinstance(leaf, torch.Tensor) for leaf in leaves_of(self.answer)):
            raise CaptureError(
                f"{type(model).__name__} returns no tensor but {type(self.answer).__name__}; "
                "wrap it in a module that returns its tensors"
            )
        self._changed = state.changed()
        self._left = self._buffers(self._changed)
        self._again = run(model, args, kwargs)[0]
        self._steady = not disagreement(model, self._again, self.answer)
        other = run(model, args, kwargs, seed=1)[0] if random else self._again
        state.restore()
        if any(isinstance(part, nn.TransformerEncoder) for part in model.modules()):
            fused = run(model, args, kwargs, fused=True)[0]
            state.restore()
            if disagreement(model, fused, self.answer):
                self.notes.append(
                    "without gradients nn.TransformerEncoder puts out zeros at hidden tokens, the graph not"
                )
        aside = {*self._left, *computed_weights(model)}
        kept = [name for name in self._changed if name not in aside and not is_register(name)]
        if kept:
            self.notes.append(f"its forward sets {_listed(kept)}, which the graph does not")
        if random and disagreement(model, other, self.answer):
            self.notes.append(
                "its answer is random in eval mode too; the graph draws random numbers where the model does"
            )

    def of(self, module: nn.Module, modes: Modes) -> tuple[Modes, list[str]]:
        """Compare a graph that shares the model's tensors.

        Returns:
            The modes in which it does what the model does, and notes.

        Raises:
            CaptureError: if it does something else in eval mode, or in the mode that the model is in.
        """
        notes = list(self.notes)
        if "eval" in modes:
            with self.clock.step("comparing graph and model in eval mode"):
                self._refuse_in_eval(module)
        if "train" not in modes:
            return modes, notes
        try:
            with self.clock.step("comparing graph and model in train mode"):
                problem = self._problem_in_train(module)
        except _Fails as fails:
            notes.append(f"the graph was not compared in train mode, where the model fails on the example: {fails}")
            return modes, notes
        if not problem:
            return modes, notes
        if modes == {"train"} or self._model.training:
            raise CaptureError(f"in train mode {problem}")
        return frozenset({"eval"}), [*notes, f"the graph holds for eval mode alone; in train mode {problem}"]

    def _refuse_in_eval(self, module: nn.Module) -> None:
        args, kwargs = self._example
        try:
            problem = disagreement(self._model, run(module, args, kwargs)[0], self.answer)
            problem = problem or self._other_buffers(self._left)
            if not problem and not self._steady:
                problem = disagreement(self._model, run(module, args, kwargs)[0], self._again)
        finally:
            self._state.restore()
        if not problem:
            return
        raise CaptureError(problem if self._steady else self._stateful(self._changed))

    def _stateful(self, changed: list[str]) -> str:
        where = f" in {_listed(changed)}" if changed else ", or draws random numbers outside of torch"
        return (
            f"{type(self._model).__name__} answers otherwise when it is called once more with the same inputs: it "
            f"keeps state{where}, which a graph does not; let the forward depend on its inputs and buffers alone"
        )

    def _problem_in_train(self, module: nn.Module) -> str:
        """In what they differ in train mode with the same random numbers, or else without dropout."""
        problem = self._compared_in_train(module)
        if not problem:
            return ""
        with _DropoutOff():
            return self._compared_in_train(module) and problem

    def _compared_in_train(self, module: nn.Module) -> str:
        args, kwargs = self._example
        try:
            wanted, _ = run(self._model, args, kwargs, training=True)
            changed = self._state.changed()
            left = self._buffers(changed)
            again, _ = run(self._model, args, kwargs, training=True)
        except Exception as error:  # of the user's own code
            raise _Fails(f"{type(error).__name__}: {error}{place_of(error)}") from error
        finally:
            self._state.restore()
        try:
            problem = disagreement(self._model, run(module, args, kwargs, training=True)[0], wanted)
            problem = problem or self._other_buffers(left)
            steady = not disagreement(self._model, again, wanted)
            if not problem and not steady:
                problem = disagreement(self._model, run(module, args, kwargs, training=True)[0], again)
        finally:
            self._state.restore()
        return problem if steady or not problem else self._stateful([name for name in changed if name not in left])

    def _buffers(self, changed: list[str]) -> dict[str, torch.Tensor]:
        """The buffers among what holds something else than before, those of another shape left out."""
        buffers = dict(self._model.named_buffers(remove_duplicate=False))
        held = [name for name in changed if name in buffers]
        return {name: buffers[name].clone() for name in held if _alike(buffers[name], self._state.before(name))}

    def _other_buffers(self, wanted: dict[str, torch.Tensor]) -> str:
        """In what the buffers, as a graph has left them, are not as the model leaves them."""
        found = self._buffers(self._state.changed())
        present = dict(self._model.named_buffers(remove_duplicate=False))
        for name in dict.fromkeys((*wanted, *found)):
            problem = disagreement(self._model, present[name], wanted.get(name, self._state.before(name)))
            if problem:
                return f"the buffer `{name}` is left otherwise: {problem}"
        return ""


def _alike(buffer: torch.Tensor, before: torch.Tensor | None) -> bool:
    return before is not None and (buffer.shape, buffer.dtype) == (before.shape, before.dtype)


class _Fails(Exception):
    """The model itself fails."""


def _failure(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], error: Exception) -> CaptureError:
    tensors = [leaf for leaf in leaves_of((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    shapes = ", ".join(f"{tuple(t.shape)} {t.dtype}" for t in tensors)
    if isinstance(error, CaptureError):
        return error
    return CaptureError(
        f"{type(model).__name__} fails on its own example inputs ({shapes}): "
        f"{type(error).__name__}: {error}{place_of(error)}"
    )


def _listed(names: list[str]) -> str:
    shown = ", ".join(f"`{name}`" for name in names[:4])
    return shown if len(names) <= 4 else f"{shown} and {len(names) - 4} more"


class _DropoutOff(TorchFunctionMode):
    _DROPOUTS = (
        torch.dropout, F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout,
    )  # fmt: skip

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in self._DROPOUTS:
            return args[0] if args else kwargs["input"]
        if func is F.multi_head_attention_forward:
            args = (*args[:10], 0.0, *args[11:])
        if func is F.scaled_dot_product_attention:
            kwargs["dropout_p"] = 0.0
            args = (*args[:4], 0.0, *args[5:]) if len(args) > 4 else args
            kwargs = kwargs if len(args) <= 4 else {name: v for name, v in kwargs.items() if name != "dropout_p"}
        return func(*args, **kwargs)
