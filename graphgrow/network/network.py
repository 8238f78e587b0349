"""A captured model together with what is known of it: the value that rewrites turn into another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import fx

from graphgrow.errors import ModeError, Unsupported
from graphgrow.ir.answers import Answers
from graphgrow.ir.inputs import InputSpec, bind
from graphgrow.ir.meta import propagate
from graphgrow.ir.positions import Kept
from graphgrow.ir.terms import Space
from graphgrow.network.channels import ChannelAxes
from graphgrow.network.groups import Group, Groups
from graphgrow.network.ledger import Ledger
from graphgrow.network.sites import Sites
from graphgrow.ops.analysis import Analysis, Opening, analyse


@dataclass(frozen=True)
class Step:
    """What one mutation did to the places of old units, so that before and after can be laid side by side.

    Attributes:
        nodes: by node name, for each of its axes that changed, where the old positions are now; -1 where gone.
        shared: nodes whose old positions hold shares of what they held, so that they cannot be compared.
        tensors: the same by qualified name of parameters and buffers.
        exact_in: the modes in which the mutation is exact.
        touched: qualified names of the parameters and buffers whose tensors were replaced.
        rounded: whether old or mean-filled entries were rounded to the parameters' own dtype.
        moved: by name of a node that was there before, the node that now carries its value to the readers.
        created: names of the nodes that the mutation made.
        inputs: where the old positions of an input are now, by its path in the call (`keystr` of args and kwargs), for
            each axis that grew.
        outputs: the same for the outputs, by their path in what is returned.
        spec: the inputs from now on, None where they are as they were.
        dormant: names of parameters whose new entries other inputs than the examples reach alone: those of new tokens,
            or of longer sequences.
    """

    nodes: Mapping[str, Mapping[int, Kept]] = field(default_factory=dict)
    shared: frozenset[str] = frozenset()
    tensors: Mapping[str, Mapping[int, torch.Tensor]] = field(default_factory=dict)
    exact_in: frozenset[str] = frozenset({"eval", "train"})
    touched: tuple[str, ...] = ()
    rounded: bool = False
    moved: Mapping[str, str] = field(default_factory=dict)
    created: frozenset[str] = frozenset()
    inputs: Mapping[str, Mapping[int, torch.Tensor]] = field(default_factory=dict)
    outputs: Mapping[str, Mapping[int, Kept]] = field(default_factory=dict)
    spec: InputSpec | None = None
    dormant: frozenset[str] = frozenset()


@dataclass(frozen=True, eq=False)
class Network:
    """A graph module with its inputs, its ledger, and (when first asked for) its axes and channel groups.

    Attributes:
        module: the graph module: an ordinary trainable nn.Module, called like the original.
        inputs: shapes and dtypes of its example inputs.
        ledger: the mutations applied since the base was captured.
        way: how the base was captured.
        modes: the modes in which the graph is the model's.
        notes: what a user should know about the capture.
        base: the name by which the base model can be built again, None for a module of the user's own.
        steps: for each ledger entry what it did to the places of old units.
        base_inputs: of the base, where a mutation has changed the inputs since; None where they are the same.
        opening: axes of the interface that the analysis leaves free; of a network that a pass looks at, never of one
            that users have.
        answers: what operators have answered on the meta device, here and in what this was grown from.
    """

    module: fx.GraphModule
    inputs: InputSpec
    ledger: Ledger = field(default_factory=Ledger)
    way: str = "fx"
    modes: frozenset[str] = frozenset({"train", "eval"})
    notes: tuple[str, ...] = ()
    base: str | None = None
    steps: tuple[Step, ...] = ()
    base_inputs: InputSpec | None = None
    opening: Opening = field(default_factory=Opening)
    answers: Answers = field(default_factory=Answers, repr=False)

    @cached_property
    def analysis(self) -> Analysis:
        """Every node's axes and facts."""
        find_values(self)
        return analyse(self.module, self.opening)

    @cached_property
    def groups(self) -> Groups:
        """The channel groups, those that can grow and those that are frozen."""
        return Groups.of(self.analysis)

    @cached_property
    def sites(self) -> Sites:
        """The names by which users call the nodes of the graph."""
        return Sites(self.module)

    @cached_property
    def channels(self) -> ChannelAxes:
        """Which axes of the graph's tensors hold channels."""
        return ChannelAxes(self.analysis)

    def __getstate__(self) -> dict[str, Any]:
        """What copies and pickles take along: not what was worked out, which names the nodes of this very graph."""
        return {one.name: getattr(self, one.name) for one in fields(self)}

    def take_over(self, earlier: Network, sizes: Mapping[Space, int]) -> None:
        """Go on with what is known of an earlier network, whose graph this one has edited in place.

        Args:
            earlier: of no use any more.
            sizes: the new sizes of spaces, which are all that is different.
        """
        for space, size in sizes.items():
            space.size = size
        for name in ("analysis", "groups"):
            if name in earlier.__dict__:
                self.__dict__[name] = earlier.__dict__[name]

    def require_modes(self, *modes: str) -> None:
        """See that the graph holds in all modes in which it is about to be run.

        Raises:
            ModeError: if it does not.
        """
        missing = [mode for mode in modes if mode not in self.modes]
        if missing:
            raise ModeError(
                f"this graph of {type(self.module).__name__} holds for {next(iter(self.modes))} mode alone, and would "
                f"be run in {missing[0]} mode here: let the forward go one way in both modes, or capture it in "
                f"{missing[0]} mode: model.{missing[0]}() before gg.trace"
            )

    def group(self, name: str) -> Group:
        """The channel group of a name, or that a module of that path writes.

        Raises:
            MutationError: if there is none; names the closest ones.
        """
        return self.groups.find(name)


# By graph, what its nodes' example values were made on: a child has them from the check of its shapes.
_VALUED: WeakKeyDictionary[fx.Graph, object] = WeakKeyDictionary()


def note_values(network: Network) -> None:
    """Note that every node of a network's graph has its example value."""
    _VALUED[network.module.graph] = _signature(network.module, network.inputs)


def find_values(network: Network) -> None:
    """See that every node of a network's graph has its example value."""
    if _VALUED.get(network.module.graph) != _signature(network.module, network.inputs):
        propagate(network.module, placeholder_values(network.module, network.inputs), network.answers)
        note_values(network)


def _signature(module: fx.GraphModule, inputs: InputSpec) -> object:
    tensors = [*module.parameters(), *module.buffers()]
    return inputs, [(tensor.shape, tensor.dtype) for tensor in tensors]


def placeholder_values(module: fx.GraphModule, inputs: InputSpec) -> dict[str, object]:
    """An example value for each placeholder of a graph, on the meta device."""
    nodes = [node for node in module.graph.nodes if node.op == "placeholder"]
    bound = bind([str(node.target) for node in nodes], *inputs.sample(device="meta"))
    return {node.name: bound.get(str(node.target), node.args[0] if node.args else None) for node in nodes}


def require_network(given: object, call: str) -> None:
    """Refuse what is no graph where one is wanted.

    Args:
        given: by the user.
        call: what it was given to, as users write it.

    Raises:
        Unsupported: if it is a module, or anything else.
    """
    if not isinstance(given, Network):
        of_a_graph = isinstance(given, fx.GraphModule)
        remedy = "pass the graph, not its `module`" if of_a_graph else "graph = gg.trace(model, example_inputs)"
        raise Unsupported(f"{call} takes a graph, not a {type(given).__name__}: {remedy}")
