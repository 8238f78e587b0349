"""One tensor of a graph, with its axes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from graphgrow.ir.bounds import UNBOUNDED, Bounds
from graphgrow.ir.terms import Axes, Space, occurs


class Fresh(Enum):
    """How the new entries of a parameter start where they are free."""

    HE = "he"  # normal, std sqrt(2 / fan_in) at the new fan (He et al. 2015)
    ONES = "ones"
    ZEROS = "zeros"
    LIKE = "like"  # normal, with the standard deviation of the old entries; their number where they are all one
    REPEAT = "repeat"  # the old entries, one after the other: what the forward keeps of earlier calls
    ABOVE = "above"  # magnitudes of such numbers, none of them zero: biases of units that would be zero without them


@dataclass(eq=False)
class Value:
    """One tensor of the graph: a node's output, or a parameter or buffer; compared by identity.

    Attributes:
        axes: one term for each dimension.
        name: the node's name, or the qualified name of the parameter.
        parameter: whether it is a parameter or buffer, and so a source whose new entries are chosen.
        buffer: whether it is a buffer.
        fresh: how free new entries start (parameters only).
        fan: the axes whose sizes multiply to the fan-in (parameters only).
        aliases: all qualified names of the parameter, when it is tied.
        bounds: between which numbers every entry is known to lie.
        complex: whether its numbers are complex (parameters only).
        infinite: whether entries may be infinite by the model's own doing, as a mask of minus infinity leaves them.
        margins: where it is so by a padding with minus infinity alone, how many such places there are at the front and
            at the end of the last axis, of the one in front of it, and so on, as torch's `pad` has them.
        constant: whether it is computed from parameters alone, so that its sizes are the same in every call.
        mean_of: the value and the axis that this is the mean of, with that axis kept at size 1.
        above: values of which no entry is larger than the one that it meets here: what a maximum is taken of.
    """

    axes: Axes
    name: str
    parameter: bool = False
    buffer: bool = False
    fresh: Fresh = Fresh.LIKE
    fan: tuple[int, ...] = ()
    aliases: tuple[str, ...] = ()
    bounds: Bounds = UNBOUNDED
    complex: bool = False
    infinite: bool = False
    margins: tuple[Bounds, ...] = ()
    constant: bool = False
    mean_of: tuple[Value, int] | None = None
    above: tuple[Value, ...] = ()

    def axes_with(self, space: Space) -> list[int]:
        """The indices of the axes whose terms hold the space."""
        return [i for i, term in enumerate(self.axes) if occurs(space, term)]
