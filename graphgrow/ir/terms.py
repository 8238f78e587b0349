"""Axis terms: spaces, products and concatenations, and the solver that makes them equal.

A *space* is a variable with a size. Spaces are kept in a union-find forest: two that must be equal become
one, and one that a view cuts in two is *bound* to a product (or a concatenation) and so refined everywhere
at once. A term is a space, a product of terms (slowest first) or a concatenation of terms.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a space is frozen: the node that froze it, and what that node does with it."""

    node: str
    text: str

    def __str__(self) -> str:
        return f"{self.text} (at `{self.node}`)"


class _Bindings:
    """The bindings of all spaces.

    Attributes:
        state: stands for them as they are; another object after each binding.
    """

    state: ClassVar[object] = object()


_Seen = tuple[object, tuple["Space", ...]]  # the state of the bindings in which a term had these spaces


@dataclass(eq=False, slots=True)
class Space:
    """A variable axis: `size` units; `label` names its part in a product; compared by identity.

    One position of an axis that is taken apart by number is a space of size 1 that knows which axis it is a part `of`.
    """

    size: int
    label: str = ""
    frozen: Reason | None = None
    bound: Term | None = None
    of: Space | None = None

    def __repr__(self) -> str:
        return f"Space({self.size}{', ' + self.label if self.label else ''}{', frozen' if self.frozen else ''})"


@dataclass(frozen=True, slots=True)
class Product:
    """Row-major product of axes, slowest first: what flatten, view and grouped convolutions make.

    Attributes:
        factors: the axes; products among them are replaced by their own factors.
        size: number of positions.
    """

    factors: tuple[Term, ...]
    size: int = field(init=False, compare=False)
    _seen: _Seen = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        # flat, so that a term which grows along a whole network gets no deeper than it is long
        flat = tuple(f for item in self.factors for f in (item.factors if isinstance(item, Product) else (item,)))
        object.__setattr__(self, "factors", flat)
        object.__setattr__(self, "size", prod(factor.size for factor in flat))
        object.__setattr__(self, "_seen", _UNSEEN)


@dataclass(frozen=True, slots=True)
class Concat:
    """Concatenation of axes: what cat, chunk and split make.

    Attributes:
        parts: the axes; concatenations among them are replaced by their own parts.
        size: number of positions.
    """

    parts: tuple[Term, ...]
    size: int = field(init=False, compare=False)
    _seen: _Seen = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        flat = tuple(p for item in self.parts for p in (item.parts if isinstance(item, Concat) else (item,)))
        object.__setattr__(self, "parts", flat)
        object.__setattr__(self, "size", sum(part.size for part in flat))
        object.__setattr__(self, "_seen", _UNSEEN)


_UNSEEN: _Seen = (None, ())
Term = Space | Product | Concat
Axes = tuple[Term, ...]


def product(factors: Iterable[Term]) -> Term:
    """The product of the factors; of a single factor, that factor."""
    items = tuple(factors)
    return items[0] if len(items) == 1 else Product(items)


def concat(parts: Iterable[Term]) -> Term:
    """The concatenation of the parts; of a single part, that part."""
    items = tuple(parts)
    return items[0] if len(items) == 1 else Concat(items)


def find(space: Space) -> Term:
    """The representative of a space: itself, or what it is bound to, following unions of spaces."""
    if space.bound is None:  # nearly always
        return space
    root: Space = space
    while isinstance(root.bound, Space):
        root = root.bound
    while space is not root:  # path compression
        following = space.bound
        space.bound = root
        assert isinstance(following, Space)
        space = following
    return root if root.bound is None else root.bound


def normal(term: Term) -> Term:
    """The term with every binding followed, and nested products and concatenations flattened."""
    if isinstance(term, Space):
        found = find(term)
        return found if isinstance(found, Space) else normal(found)
    kind = type(term)
    items: list[Term] = []
    pending: list[Term] = [term]
    while pending:  # no recursion but where products and concatenations take turns: bindings may form long chains
        item = pending.pop()
        item = find(item) if isinstance(item, Space) else item
        if isinstance(item, Space):
            items.append(item)
        elif isinstance(item, kind):
            pending.extend(reversed(children(item)))
        else:
            inner = normal(item)
            items.extend(children(inner) if isinstance(inner, kind) else (inner,))
    return product(items) if kind is Product else concat(items)


def children(term: Product | Concat) -> Axes:
    """The factors of a product, the parts of a concatenation."""
    return term.factors if isinstance(term, Product) else term.parts


def leaves(term: Term) -> Iterator[Space]:
    """The spaces of a term in order; one that occurs twice comes twice."""
    found = find(term) if isinstance(term, Space) else term
    return iter((found,) if isinstance(found, Space) else _leaves(found))


def _leaves(term: Product | Concat) -> tuple[Space, ...]:
    """The spaces of a term in order, which are looked up once as long as no space is bound."""
    state, found = term._seen
    if state is _Bindings.state:
        return found
    state, spaces = _Bindings.state, list[Space]()
    pending: list[Term] = [term]
    while pending:
        item = pending.pop()
        item = find(item) if isinstance(item, Space) else item
        if isinstance(item, Space):
            spaces.append(item)
        else:
            pending.extend(reversed(children(item)))
    object.__setattr__(term, "_seen", (state, tuple(spaces)))
    return tuple(spaces)


def occurs(space: Space, term: Term) -> bool:
    """Whether a space is one of the spaces of a term."""
    if isinstance(term, Space):  # nearly always
        term = find(term)
        if isinstance(term, Space):
            return term is space
    return space in _leaves(term)  # spaces are compared by identity


def bind(space: Space, term: Term) -> None:
    """Bind a representative space to an equal term."""
    space.bound = term
    _Bindings.state = object()


def freeze(terms: Iterable[Term], reason: Reason) -> None:
    """Mark every space of the terms as frozen; the first reason stands."""
    for term in terms:
        for space in leaves(term):
            if space.frozen is None:
                space.frozen = reason


def unify(a: Term, b: Term, reason: Reason) -> None:
    """Make two terms of equal size one, refining spaces where needed.

    Args:
        a: one term.
        b: another of the same size.
        reason: recorded on all the spaces of both where they cannot be made equal; both stay as they are
            and frozen, so that nothing is ever guessed.

    Raises:
        ValueError: if the sizes differ, which is a defect of the rule that asked.
    """
    if a.size != b.size:
        raise ValueError(f"axes of sizes {a.size} and {b.size} cannot be equal, at {reason}")
    pending: list[tuple[Term, Term]] = [(a, b)]
    while pending:
        left, right = (normal(term) for term in pending.pop())
        if left is right or left == right:
            continue
        if isinstance(left, Space) or isinstance(right, Space):
            fits = _bind(left, right) if isinstance(left, Space) else _bind(right, left)  # type: ignore[arg-type]
        elif isinstance(left, Product) and isinstance(right, Product):
            fits = _match_factors(left, right, pending)
        elif isinstance(left, Concat) and isinstance(right, Concat):
            fits = _match_parts(left, right, pending)
        else:
            outer, parts = (left, right) if isinstance(left, Product) else (right, left)
            assert isinstance(outer, Product)
            assert isinstance(parts, Concat)
            fits = _distribute(outer, parts, pending)
        if not fits:
            freeze((left, right), reason)


def _bind(space: Space, term: Term) -> bool:
    """Bind a representative space to an equal term; both take on what froze either of them."""
    if isinstance(term, Space):
        term.frozen = term.frozen or space.frozen
        term.label = term.label or space.label
        term.of = term.of or space.of
    elif occurs(space, term):
        return False  # a space inside itself: only with unit factors, and then nothing is gained
    elif space.frozen is not None:
        freeze((term,), space.frozen)
    bind(space, term)
    return True


def _take(queue: list[Term], size: int, as_product: bool) -> Term | None:
    """Cut the first item of the queue so that its head has `size` positions (as factor or as part)."""
    head = queue[0]
    if head.size == size:
        return queue.pop(0)
    if not isinstance(head, Space):
        return None
    rest = head.size // size if as_product else head.size - size
    if as_product and head.size % size:
        return None
    first, second = Space(size), Space(rest)
    _bind(head, Product((first, second)) if as_product else Concat((first, second)))
    queue[0] = second
    return first


def _match(left: Sequence[Term], right: Sequence[Term], as_product: bool, pending: list[tuple[Term, Term]]) -> bool:
    queues = [list(left), list(right)]
    while queues[0] and queues[1]:
        size = min(queues[0][0].size, queues[1][0].size)
        first, second = (_take(queue, size, as_product) for queue in queues)
        if first is None or second is None:
            return False
        pending.append((first, second))
        queues = [_followed(queue, as_product) for queue in queues]
    return not queues[0] and not queues[1]


def _followed(queue: Sequence[Term], as_product: bool) -> list[Term]:
    """What is left to match, after a space of it may have been cut: one that occurs several times is cut everywhere."""
    whole = normal(product(queue) if as_product else concat(queue)) if queue else None
    if isinstance(whole, Product if as_product else Concat):
        return list(children(whole))
    return [] if whole is None else [whole]


def _match_factors(left: Product, right: Product, pending: list[tuple[Term, Term]]) -> bool:
    """Match factors from the slowest; a factor of size 1 without a partner is dropped, and so frozen."""
    factors = [[f for f in side.factors if f.size != 1] for side in (left, right)]
    units = [[f for f in side.factors if f.size == 1] for side in (left, right)]
    if [f.size for f in left.factors] == [f.size for f in right.factors]:
        pending.extend(zip(left.factors, right.factors, strict=True))
        return True
    freeze(units[0] + units[1], Reason("view", "a factor of size 1 that a view drops"))
    return _match(factors[0], factors[1], True, pending)


def _match_parts(left: Concat, right: Concat, pending: list[tuple[Term, Term]]) -> bool:
    return _match(left.parts, right.parts, False, pending)


def _distribute(outer: Product, parts: Concat, pending: list[tuple[Term, Term]]) -> bool:
    """(F x R) = A ++ B, where A and B are whole multiples of R: F becomes f1 ++ f2, A = f1 x R, B = f2 x R."""
    slowest, inner = outer.factors[0], product(outer.factors[1:])
    if any(part.size % inner.size for part in parts.parts):
        return False
    pieces = [Space(part.size // inner.size) for part in parts.parts]
    pending.append((slowest, Concat(tuple(pieces))))
    pending.extend((part, Product((piece, inner))) for part, piece in zip(parts.parts, pieces, strict=True))
    return True
