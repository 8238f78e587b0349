"""Other sizes of the inputs than the example's: those of positions and sequences that the parent takes as well."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from torch import fx

from graphgrow.errors import GraphGrowError, NotPreserved
from graphgrow.ir.inputs import InputSpec, TensorSpec, bind
from graphgrow.ir.meta import FIXED, MetaRunner
from graphgrow.verification.case import Case, Findings
from graphgrow.verification.probes import Inputs

Shape = Sequence[int]
Sizes = Sequence[Shape | Sequence[Shape]]  # a shape for a single tensor, or one for each tensor in call order
Shapes = tuple[tuple[int, ...], ...]
Place = tuple[int, int]  # the number of a tensor input, and an axis of it
_MOST = 40  # trials on the meta device; most fail at the first layer
_REFUSALS = (RuntimeError, ValueError, TypeError, IndexError, AttributeError, AssertionError, GraphGrowError)


def asked_sizes(spec: InputSpec, sizes: Sizes) -> tuple[InputSpec, ...]:
    """The inputs at sizes that a user names.

    Raises:
        NotPreserved: if they are no shapes of these inputs.
    """
    try:
        return tuple(spec.with_shapes([size] if isinstance(size[0], int) else size) for size in sizes)  # type: ignore[list-item, arg-type, unused-ignore]
    except (TypeError, ValueError, IndexError) as error:
        raise NotPreserved(
            f"sizes={sizes!r}: {error}; wanted is a list of shapes with their batch axes, sizes=[(2, 3, 40, 48)], or "
            "of tuples of shapes where there are several tensors; () compares the example's alone"
        ) from error


def found_sizes(case: Case, found: Findings) -> tuple[InputSpec, ...]:
    """Inputs of one more size that the parent takes, tried on the meta device; a note where there is none.

    All axes but those of the batch that have one size change together: a sequence and its mask do. Where the parent
    does not take that, axes of one number do, and then each by itself. A larger size is looked for first, since it
    shows a constant that the example's size hides; two axes of one tensor become unlike where that may be.
    """
    search = _Search(case)
    shapes = search.run()
    if shapes is None:
        found.notes.append(f"other sizes of the inputs: none was compared, as {search.why}")
        return ()
    return (case.probes.spec.with_shapes(shapes),)


def takes_batch(case: Case, size: int) -> bool:
    """Whether the parent takes so many samples at once; presumed where a layer of it runs on real numbers alone."""
    search, spec = _Search(case), case.probes.spec
    shapes = ((size, *t.shape[1:]) if spec.batched(t) else t.shape for t in spec.tensors)
    return any(FIXED in node.meta for node in case.parent.module.graph.nodes) or search.takes(tuple(shapes))


class _Search:
    """Tries sizes on a parent without data.

    Attributes:
        why: why nothing was found.
    """

    def __init__(self, case: Case) -> None:
        self._case, self._spec = case, case.probes.spec
        self._module: fx.GraphModule = case.parent.module
        self._runner, self._left = MetaRunner(self._module, case.parent.answers), _MOST
        self.why = "the parent takes the example's alone"

    def run(self) -> Shapes | None:
        """The shapes of all tensors, with as few in a batch as the parent takes; None where nothing may change."""
        if any(FIXED in node.meta for node in self._module.graph.nodes):
            self.why = "a layer of the parent runs on real numbers alone"
            return None
        example: Shapes = tuple(tensor.shape for tensor in self._spec.tensors)
        fewer = self._with_batch(example)
        for start in (example,) if fewer is None else (fewer, example):
            shapes, tried = start, set[tuple[Shapes, tuple[Place, ...]]]()
            for places in self._sets(example):
                attempt = (shapes, tuple(places))  # a single axis comes as one of its size, of its number, and alone
                if attempt not in tried and all(
                    shapes[number][axis] == example[number][axis] for number, axis in places
                ):
                    tried.add(attempt)
                    shapes = self._changed(shapes, places) or shapes
            if shapes != start:
                return shapes
        return None

    def _sets(self, example: Shapes) -> Iterator[list[Place]]:
        """Axes that may belong together: of one size, then of one number among those, then each alone."""
        groups: dict[int, list[Place]] = {}
        for place in self._places():
            groups.setdefault(example[place[0]][place[1]], []).append(place)
        for together in sorted(groups.values(), key=lambda places: -example[places[0][0]][places[0][1]]):
            yield together
            for axis in sorted({axis for _, axis in together}):
                yield [place for place in together if place[1] == axis]
            yield from ([place] for place in together)

    def _places(self) -> Iterator[Place]:
        """The axes that are neither the batch's nor grew; one of size 1 says nothing of what it is."""
        grown = self._case.interface[0]
        number = itertools.count()
        for leaf, spec in enumerate(self._spec.leaves):
            if not isinstance(spec, TensorSpec):
                continue
            tensor = next(number)
            for axis in range(1 if self._spec.batched(spec) else 0, len(spec.shape)):
                if spec.shape[axis] > 1 and axis not in grown.get(str(leaf), {}):
                    yield tensor, axis

    def _changed(self, shapes: Shapes, places: list[Place]) -> Shapes | None:
        old = shapes[places[0][0]][places[0][1]]
        for size in _others(old):
            new = _put(shapes, places, size)
            if self.takes(new):
                last = max(axis for _, axis in places)
                unlike = _put(new, [place for place in places if place[1] == last], 2 * size - old)
                several = len({axis for _, axis in places}) > 1 and size < 2 * old and 2 * size - old > 1
                return unlike if several and self.takes(unlike) else new
        return None

    def _with_batch(self, shapes: Shapes) -> Shapes | None:
        sizes = [size for size in self._case.probes.batch_sizes if size < (self._spec.batch_size or 0)]
        if not sizes or "eval" not in self._case.modes:
            return None
        batched = [self._spec.batched(tensor) for tensor in self._spec.tensors]
        return tuple((min(sizes), *shape[1:]) if first else shape for shape, first in zip(shapes, batched, strict=True))

    def takes(self, shapes: Shapes) -> bool:
        """Whether the parent gives an answer for inputs of these shapes, on the meta device."""
        if not self._left:
            return False
        self._left -= 1
        try:
            probe = self._spec.with_shapes(shapes).sample(device="meta")
            return self._answers(self._case.inputs_of(self._module, probe))
        except _REFUSALS:
            return False

    def _answers(self, probe: Inputs) -> bool:
        nodes = self._module.graph.nodes
        bound = bind([str(node.target) for node in nodes if node.op == "placeholder"], *probe)
        values: dict[fx.Node, Any] = {}
        for node in nodes:
            if node.op == "placeholder":
                values[node] = bound.get(str(node.target), node.args[0] if node.args else None)
            elif node.op != "output":
                args, kwargs = fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
                values[node] = self._runner.run(node.op, node.target, args, kwargs)
        return True


def _others(size: int) -> Iterator[int]:
    """Sizes to try: the next larger ones, by powers of 2 as strides go, twice as many, and smaller ones."""
    steps = itertools.takewhile(lambda step: step < size, (2**power for power in itertools.count()))
    sizes = [*(size + step for step in steps), 2 * size, size - 1, size // 2]
    yield from (other for other in dict.fromkeys(sizes) if other > 1)


def _put(shapes: Shapes, places: Sequence[Place], size: int) -> Shapes:
    return tuple(
        tuple(size if (number, axis) in places else own for axis, own in enumerate(shape))
        for number, shape in enumerate(shapes)
    )


def spoken(spec: InputSpec) -> str:
    """The shapes of the tensors, to be printed."""
    return ", ".join("x".join(map(str, tensor.shape)) or "()" for tensor in spec.tensors)
