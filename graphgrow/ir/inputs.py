"""What a model is called with: the shapes and dtypes of its example inputs, and fresh samples of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch.utils import _pytree as pytree

from graphgrow.errors import CaptureError


@dataclass(frozen=True)
class TensorSpec:
    """One tensor input: its shape, dtype and, for integers, the range of values that was seen.

    The order is that of integers along the last axis: "rising" where they begin with the lowest and never fall (the
    offsets of bags, the bounds of segments), "falling" for a row that begins with the highest and never rises (the
    lengths of sequences that are packed), "boxes" for (x0, y0, x1, y1) with x0 <= x1 and y0 <= y1, else empty. Of other
    numbers it is "unit" or "positive" where all lay between 0 and 1 or none below 0 (probabilities, weights of
    edges, counts), whose roots and logarithms a model may take.

    Where a model does not run on whole numbers and truths that are drawn, those of the example are given, in the order
    of their places, and stand in each sample.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    low: int = 0
    high: int = 1
    order: str = ""
    given: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Refuse an order that no tensor of this kind has, and numbers that are not as many as its places.

        Raises:
            ValueError: if so.
        """
        if self.given and (self.dtype.is_floating_point or len(self.given) != math.prod(self.shape)):
            raise ValueError(f"{len(self.given)} whole numbers are no tensor of shape {self.shape} and {self.dtype}")
        whole = self.dtype != torch.bool and not self.dtype.is_floating_point
        floating = self.dtype.is_floating_point
        fits = {
            "": True,
            "rising": whole and bool(self.shape),
            "falling": whole and len(self.shape) == 1,
            "boxes": whole and self.shape[-1:] == (4,),
            **dict.fromkeys(("unit", "positive"), floating),
        }
        if not fits.get(self.order, False):
            raise ValueError(f"no tensor of shape {self.shape} and {self.dtype} has the order {self.order!r}")

    @classmethod
    def of(cls, tensor: torch.Tensor) -> TensorSpec:
        """The specification of an example tensor; integers remember extremes and order, others if they had signs."""
        shape = tuple(tensor.shape)
        if tensor.dtype == torch.bool or tensor.is_meta:
            return cls(shape, tensor.dtype)
        if tensor.is_floating_point():
            lowest, highest = float(tensor.min()), float(tensor.max())
            signless = 0 <= lowest < highest  # not what holds one number alone, or NaN
            return cls(shape, tensor.dtype, order=("unit" if highest <= 1 else "positive") if signless else "")
        low, high = int(tensor.min()), int(tensor.max())
        rising = low < high and bool((tensor[..., 0] == low).all() and (tensor.diff(dim=-1) >= 0).all())
        falling = low < high and tensor.dim() == 1 and bool((tensor.diff() <= 0).all())
        boxes = low < high and tensor.dim() > 1 and shape[-1] == 4 and bool((tensor[..., :2] <= tensor[..., 2:]).all())
        return cls(shape, tensor.dtype, low, high, "rising" if rising else "falling" if falling else "boxes" * boxes)

    def sample(self, batch_size: int | None, batched: bool, generator: torch.Generator) -> torch.Tensor:
        """A random tensor on the CPU: normal, without a sign where none was seen, or uniform in the range seen.

        The highest integer seen is among those of a tensor of one axis. What is given is repeated, or cut off, along
        the batch axis.
        """
        shape = self.shape if batch_size is None or not batched else (batch_size, *self.shape[1:])
        if self.given:
            example = torch.tensor(self.given, dtype=self.dtype).reshape(self.shape)
            return example if shape == self.shape else example[torch.arange(shape[0]) % self.shape[0]]
        if self.dtype == torch.bool:
            return torch.randint(0, 2, shape, generator=generator).bool()
        if not self.dtype.is_floating_point:
            drawn = torch.randint(self.low, self.high + 1, shape, generator=generator, dtype=self.dtype)
            if self.order == "boxes":
                return drawn.reshape(*shape[:-1], 2, 2).sort(dim=-2).values.reshape(shape)
            if self.order == "rising":
                drawn[..., 0] = self.low
                return drawn.sort(dim=-1).values
            if drawn.dim() == 1:  # the longest sequence may have to be as long as another input
                drawn[torch.randint(len(drawn), (), generator=generator)] = self.high
            return drawn.sort(descending=True).values if self.order == "falling" else drawn
        if self.order == "unit":
            return torch.rand(shape, generator=generator, dtype=torch.float32).to(self.dtype)
        normal = torch.randn(shape, generator=generator, dtype=torch.float32).to(self.dtype)
        return normal.abs() if self.order == "positive" else normal


@dataclass(frozen=True)
class InputSpec:
    """The positional and keyword inputs of a model, tensors as `TensorSpec`, all else as it was given.

    Axis 0 is the batch axis of every tensor whose first size equals that of the first tensor.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @classmethod
    def of(cls, args: Any, kwargs: Mapping[str, Any] | None = None) -> InputSpec:
        """The specification of example inputs: a tensor, or a sequence of positional inputs.

        Raises:
            CaptureError: if no tensor is among them, or one is empty.
        """
        positional = (args,) if isinstance(args, torch.Tensor) or not isinstance(args, Sequence) else tuple(args)
        named = dict(kwargs or {})
        tensors = [leaf for leaf in pytree.tree_leaves((positional, named)) if isinstance(leaf, torch.Tensor)]
        if not tensors:
            raise CaptureError(
                f"the example inputs hold no tensor: {positional!r}; pass one as gg.trace(model, tensor)"
            )
        empty = next((tuple(t.shape) for t in tensors if t.numel() == 0), None)
        if empty is not None:
            raise CaptureError(f"an example input is empty: its shape is {empty}; pass one with at least one element")

        def spec(leaf: Any) -> Any:
            return TensorSpec.of(leaf) if isinstance(leaf, torch.Tensor) else leaf

        return cls(pytree.tree_map(spec, positional), pytree.tree_map(spec, named), tensors[0].device)

    @property
    def tensors(self) -> list[TensorSpec]:
        """The tensor inputs, in call order."""
        return [leaf for leaf in self.leaves if isinstance(leaf, TensorSpec)]

    @property
    def leaves(self) -> list[Any]:
        """All inputs, in call order: specifications of tensors, and all else as it was given."""
        return pytree.tree_leaves((self.args, dict(self.kwargs)))

    @property
    def batch_size(self) -> int | None:
        """The size of axis 0 of the first tensor; None where that is a scalar."""
        shape = self.tensors[0].shape
        return shape[0] if shape else None

    def batched(self, spec: TensorSpec) -> bool:
        """Whether axis 0 of this input is the batch axis."""
        return bool(spec.shape) and spec.shape[0] == self.batch_size

    def with_dtype(self, dtype: torch.dtype) -> InputSpec:
        """The same inputs with another dtype for the floating-point ones."""

        def convert(leaf: Any) -> Any:
            floating = isinstance(leaf, TensorSpec) and leaf.dtype.is_floating_point
            return replace(leaf, dtype=dtype) if floating else leaf

        args, kwargs = pytree.tree_map(convert, (self.args, dict(self.kwargs)), is_leaf=_is_spec)
        return replace(self, args=args, kwargs=kwargs)

    def with_shapes(self, shapes: Sequence[Sequence[int]]) -> InputSpec:
        """The same inputs with other shapes, one for each tensor in call order.

        Raises:
            ValueError: if there are more or fewer of them than tensors, one has another number of axes or a size below
                1, or integers of that shape cannot have the order that was seen.
        """
        old = self.tensors
        fit = len(shapes) == len(old) and all(len(new) == len(one.shape) for new, one in zip(shapes, old, strict=True))
        if not fit or any(size < 1 for shape in shapes for size in shape):
            wanted = ", ".join(str(one.shape) for one in old)
            raise ValueError(f"{[tuple(shape) for shape in shapes]} are no shapes for inputs like {wanted}")
        rest = iter(shapes)

        def convert(leaf: Any) -> Any:
            if not isinstance(leaf, TensorSpec):
                return leaf
            shape = tuple(next(rest))
            return replace(leaf, shape=shape, given=leaf.given if shape == leaf.shape else ())

        args, kwargs = pytree.tree_map(convert, (self.args, dict(self.kwargs)), is_leaf=_is_spec)
        return replace(self, args=args, kwargs=kwargs)

    def with_given(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> InputSpec:
        """The same inputs, whose whole numbers and truths are those of these example inputs in each sample."""

        def give(leaf: Any, example: Any) -> Any:
            drawn = isinstance(leaf, TensorSpec) and not leaf.dtype.is_floating_point and not leaf.dtype.is_complex
            return replace(leaf, given=tuple(map(int, example.flatten().tolist()))) if drawn else leaf

        def given(spec: Any, example: Any) -> Any:
            return pytree.tree_map(give, spec, example, is_leaf=_is_spec)

        named = {name: given(spec, kwargs[name]) if name in kwargs else spec for name, spec in self.kwargs.items()}
        return replace(self, args=given(self.args, tuple(args)), kwargs=named)

    def sample(
        self,
        seed: int = 0,
        batch_size: int | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Random inputs of these shapes, drawn on the CPU and then moved.

        Args:
            seed: of the generator; equal seeds give equal inputs on every device.
            batch_size: instead of the example's; None keeps it.
            dtype: for the floating-point inputs; None keeps each one's own.
            device: where the inputs go; None is the device of the examples.
        """
        generator = torch.Generator().manual_seed(seed)

        def draw(leaf: Any) -> Any:
            if not isinstance(leaf, TensorSpec):
                return leaf
            tensor = leaf.sample(batch_size, self.batched(leaf), generator)
            if dtype is not None and tensor.is_floating_point():
                tensor = tensor.to(dtype)
            return tensor.to(device or self.device)

        args, kwargs = pytree.tree_map(draw, (self.args, dict(self.kwargs)), is_leaf=_is_spec)
        return args, kwargs


def bind(names: Sequence[str], args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Inputs by the names of a graph's placeholders, as Python binds them: `*xs` takes the rest, `**options` too.

    Names without an input are left out.
    """
    bound: dict[str, Any] = {}
    plain = [name for name in names if not name.startswith("*")]
    for position, name in enumerate(plain):
        if position < len(args):
            bound[name] = args[position]
        elif name in kwargs:
            bound[name] = kwargs[name]
    for name in names:
        if name.startswith("**"):
            bound[name] = {key: value for key, value in kwargs.items() if key not in plain}
        elif name.startswith("*"):
            bound[name] = tuple(args[len(plain) :])
    return bound


def _is_spec(leaf: Any) -> bool:
    return isinstance(leaf, TensorSpec)
