"""Applying mutations: all or none, the parent and its optimizer untouched by a failure."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable
from typing import TypeVar

import torch
from torch import fx
from torch.optim import Optimizer

from graphgrow.errors import GraphGrowError, MutationError, Unsupported
from graphgrow.ir.editor import Editor
from graphgrow.ir.late import LateCode
from graphgrow.network.gradients import refuse_gradients_in_buffers
from graphgrow.network.ledger import Entry
from graphgrow.network.neighbours import near_parameters, new_parameters
from graphgrow.network.network import Network, find_values, note_values, require_network
from graphgrow.rewrite.contract import Mutation, TensorChange
from graphgrow.rewrite.hooked import refuse_changed_hooks
from graphgrow.rewrite.listing import moved, renamed
from graphgrow.rewrite.optimizer import Migration
from graphgrow.rewrite.text import mutations_of, parse_mutation

N = TypeVar("N", bound=Network)
Mutations = Mutation | str | Iterable["Mutation | str"]


def apply(network: N, mutations: Mutations, seed: int = 0, optimizer: Optimizer | None = None, share: bool = True) -> N:
    """Apply mutations one after the other and return the grown network.

        grown = gg.apply(graph, ["widen(stem, extra=8)", "deepen(stages.1.1, kind=copy)"], optimizer=optimizer)

    Args:
        network: the parent; neither it nor any of its tensors is changed.
        mutations: one mutation, its text, or several of them; a list is applied as a whole or not at all. What
            `graph.mutations()` listed means the sites that it was listed for, though others before it rename them;
            text means what its names mean in the graph that it comes to.
        seed: of the fresh weights; recorded in the ledger.
        optimizer: over the parent's parameters; its param_groups and state are carried over in place. SGD, Adam, AdamW,
            NAdam, RAdam, Adamax, Adagrad, RMSprop, and what `gg.register_optimizer` was told of. What is new then steps
            at full pace; `gg.warm_up` slows its first steps down.
        share: unchanged parameters are shared with the parent (training the child trains them); False copies
            them. Buffers are always copied.

    Returns:
        A new graph, whose `module` has the grown architecture and whose ledger has the mutations.

    Raises:
        MutationError: if a mutation cannot be read or names something unknown.
        Declined: if one would not be exact, with the node and the reason.
        OptimizerError: if the optimizer's state cannot be carried over, or it trains nothing of the network.
        Unsupported: if the network is no graph, or a parameter or buffer that must change holds NaN.
    """
    require_network(network, "gg.apply")
    if seed < 0 or seed >= 2**63:
        raise MutationError(f"a seed is a whole number from 0 to 2^63 - 1, not {seed}")
    chosen = _as_list(mutations)
    migration = None if optimizer is None else Migration(optimizer)
    if migration is not None and chosen:
        migration.require_any(network.module.parameters())
    current = network
    for number, mutation in enumerate(chosen):
        wanted = renamed(mutation, current)
        try:
            current = _apply_one(current, wanted, seed, migration, share or number > 0, True, own=number > 0)
        except GraphGrowError as error:
            hint = moved(mutation, network, current) if wanted is mutation and number else ""
            if not hint:
                raise
            raise type(error)(f"{error}{hint}") from error
    if migration is not None:
        migration.commit({id(parameter): name for name, parameter in current.module.named_parameters()})
    return current


def replay(network: N, entries: Iterable[Entry], share: bool = True, admit: bool = False) -> N:
    """Apply the entries of a ledger with the seeds they were first applied with.

    The structure is rebuilt whatever the numbers are: they may have been trained between the entries. With `admit` a
    mutation that is not exact for the present numbers is declined.

    Raises:
        LedgerError: if an entry names an unknown pass or option; nothing was applied then.
    """
    entries = tuple(entries)
    for number, (entry, mutation) in enumerate(zip(entries, mutations_of(entries), strict=True)):
        network = _apply_one(network, mutation, entry.seed, None, share or number > 0, admit, own=number > 0)
    return network


def _as_list(mutations: Mutations) -> list[Mutation]:
    if isinstance(mutations, Mutation):
        return [mutations]
    if isinstance(mutations, str) or not isinstance(mutations, Iterable):
        return [parse_mutation(mutations)]
    return [item if isinstance(item, Mutation) else parse_mutation(item) for item in mutations]


def _apply_one(
    network: N, mutation: Mutation, seed: int, migration: Migration | None, share: bool, admit: bool, own: bool
) -> N:
    """Apply one mutation; a network of our `own`, which nobody else has seen, may be edited in place."""
    find_values(network)  # the editor's copy takes them along
    in_place = network.module if own and mutation.resizes and isinstance(network.module, LateCode) else None
    editor = Editor(network.module, share, in_place)
    if migration is not None and not share:
        for name, parameter in network.module.named_parameters():
            migration.replace(parameter, editor.tensor(name))
    present = {} if migration is None else {id(parameter): parameter for parameter in editor.module.parameters()}
    generator = torch.Generator().manual_seed(_stream(seed, len(network.ledger), str(mutation)))
    try:
        if admit:
            mutation.admit(network)
        step, changes = mutation.rewrite(network, editor, generator)
        _refuse_nan(changes)
        refuse_changed_hooks(network.module, editor.module)
        refuse_gradients_in_buffers(network.module, editor.module)
    except GraphGrowError as error:
        raise type(error)(f"{mutation}: {error}") from error
    if migration is not None:
        migration.follow(changes)
        _adopt(migration, editor.module, present.keys() | {id(change.new) for change in changes})
        replaced = {id(change.old) for change in changes} | {id(p) for p in editor.module.parameters()}
        for parameter in [p for p in present.values() if id(p) not in replaced]:
            migration.retire(parameter)
    child = dataclasses.replace(
        network,
        module=editor.finish(),
        inputs=step.spec or network.inputs,
        base_inputs=network.base_inputs if step.spec is None else network.base_inputs or network.inputs,
        ledger=network.ledger.with_entry(Entry(str(mutation), seed)),
        steps=(*network.steps, step),
    )
    if in_place is not None and editor.resized:
        child.take_over(network, editor.resized)
    note_values(child)
    return child


def _adopt(migration: Migration, module: fx.GraphModule, known: set[int]) -> None:
    """Give new parameters to the optimizer, each in the group of its nearest neighbour."""
    for parameter, node in new_parameters(module, known):
        migration.adopt(parameter, (p for p in near_parameters(module, node) if p is not parameter))


def _stream(seed: int, position: int, text: str) -> int:
    """A stream of its own for each entry, so that one seed for a whole run repeats no draws."""
    digest = hashlib.sha256(f"{seed}:{position}:{text}".encode()).digest()
    return int.from_bytes(digest[:7], "big")


def _refuse_nan(changes: Iterable[TensorChange]) -> None:
    """What is not a number spreads into what is made of it."""
    for change in changes:
        old = change.old.detach()
        if old.is_meta or not (old.is_floating_point() or old.is_complex()):
            continue
        suspect = bool(torch.isnan(old.sum()))  # one pass and no copy; infinities may cancel to NaN
        if suspect and bool(torch.isnan(old).any()):
            raise Unsupported(f"`{change.names[0]}` holds NaN, so nothing can be preserved; restore it first")
