"""Numbers that know which attribute of a model they are, so that a graph tells where each of its sizes came from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

from graphgrow.own_class.expression import Expression
from graphgrow.own_class.origin import Origin


class MarkedInt(int):
    """A whole number of a model's; what sums, products and divisions without a rest give knows what it is made of.

    Attributes:
        expression: what it is made of.
    """

    expression: Expression

    @classmethod
    def of(cls, value: int, expression: Expression) -> MarkedInt:
        """A number that is made of a model's."""
        made = cls(value)
        made.expression = expression
        return made

    def _with(self, plain: Any, other: Any, combine: Callable[[Expression | int], Expression]) -> int:
        """The result of an operation; an ordinary one where the other is no whole number."""
        if plain is NotImplemented or not isinstance(other, int):
            return plain  # type: ignore[no-any-return]  # an answer to Python, not a number
        return MarkedInt.of(plain, combine(other.expression if isinstance(other, MarkedInt) else int(other)))

    def __add__(self, other: int) -> int:
        return self._with(int.__add__(self, other), other, self.expression.plus)

    __radd__ = __add__

    def __sub__(self, other: int) -> int:
        return self._with(int.__sub__(self, other), other, lambda theirs: self.expression.plus(theirs, -1))

    def __rsub__(self, other: int) -> int:
        return self._with(int.__rsub__(self, other), other, lambda theirs: self.expression.times(-1).plus(theirs))

    def __mul__(self, other: int) -> int:
        return self._with(int.__mul__(self, other), other, self.expression.times)

    __rmul__ = __mul__

    def __neg__(self) -> int:
        return MarkedInt.of(int.__neg__(self), self.expression.times(-1))

    def __floordiv__(self, other: int) -> int:
        return self._divided(self, other, int.__floordiv__(self, other))

    def __rfloordiv__(self, other: int) -> int:
        return self._divided(other, self, int.__rfloordiv__(self, other))

    @staticmethod
    def _divided(of: Any, by: Any, plain: Any) -> int:
        if plain is NotImplemented or not isinstance(by, int) or int(plain) * int(by) != int(of):
            return plain  # type: ignore[no-any-return]  # or a rest, of which nothing is known
        whole = of.expression if isinstance(of, MarkedInt) else Expression(()).plus(int(of))
        return MarkedInt.of(plain, whole.divided(by.expression if isinstance(by, MarkedInt) else int(by)))


class MarkedFloat(float):
    """A number with a point of a model's; what is computed with it is an ordinary one.

    Attributes:
        expression: which it is.
    """

    expression: Expression


_KINDS: dict[type, type[MarkedInt] | type[MarkedFloat]] = {int: MarkedInt, float: MarkedFloat}


def mark(model: nn.Module) -> None:
    """Put marked numbers in the place of those that a model's modules keep in attributes of their own.

    Also those in tuples and lists of numbers, and in plain objects (a configuration) that attributes hold. An object
    that several modules hold has the first of them as its owner.
    """
    seen: set[int] = set()
    for path, part in model.named_modules():
        for origin, value in _numbers(part, Origin(path, ()), seen):
            marked = _KINDS[type(value)](value)
            marked.expression = Expression.of(origin)
            origin.write(model, marked)


def _numbers(owner: Any, at: Origin, seen: set[int]) -> Iterator[tuple[Origin, Any]]:
    if id(owner) in seen:
        return
    seen.add(id(owner))
    for name, value in list(vars(owner).items()):
        here = Origin(at.path, (*at.keys, name))
        if type(value) in _KINDS:
            if not name.startswith("_"):
                yield here, value
        elif type(value) in (tuple, list):
            for place, item in enumerate(value):
                if type(item) in _KINDS:
                    yield Origin(at.path, (*here.keys, place)), item
        elif isinstance(getattr(value, "__dict__", None), dict) and _plain(value):
            yield from _numbers(value, here, seen)


def _plain(value: Any) -> bool:
    """Whether an object only holds data: no module, tensor, class or function."""
    return not isinstance(value, (nn.Module, type)) and not callable(value) and not hasattr(value, "__torch_function__")
