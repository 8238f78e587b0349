"""gg.to_model: a grown graph as a model of the class that it was captured from, methods and all."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping, Sequence

import torch
from torch import fx, nn

from graphgrow.capture.model.running import run_in_eval, run_in_train
from graphgrow.capture.trace import Capture, capture
from graphgrow.errors import CaptureError, ExportError, GraphGrowError
from graphgrow.ir.editor import follow_flat_weights, shallow_copy
from graphgrow.ir.inputs import InputSpec
from graphgrow.network.network import Network, require_network
from graphgrow.own_class.attentions import resize_attentions
from graphgrow.own_class.configuration import restate_config
from graphgrow.own_class.layers import insert_layers
from graphgrow.own_class.marked import mark
from graphgrow.own_class.numbers import numbers_of, numbers_read
from graphgrow.own_class.parting import parting, settings_of
from graphgrow.pretrained.names import Renaming
from graphgrow.rewrite.apply import replay

Leaves = Sequence[type[nn.Module] | str]
_ADVICE = "`.module` of the graph is the grown model as it is, gg.export_source writes it as code"


def to_model(network: Network, model: nn.Module, leaves: Leaves = ()) -> nn.Module:
    """A copy of a model, of its own class, that computes what the graph grown from it does.

        larger = gg.to_model(grown, model)  # docs/models.md has an example with `generate`

    Its own methods work on it (`generate`, `encode`, a loss), and so does code that was written for the class. The
    copy is captured anew, and has to have the grown graph to the last node, number and weight: what its forward
    computes is known for all inputs that the graph takes. Attributes that hold a size which grew (a number of heads,
    the place of a split, an item of a configuration) are found by the operators that read them, and follow; copies of
    layers go into the list of the one that they are copies of; the configuration of a Hugging Face model says what has
    grown evenly, and so do attributes that its class makes of it (its loss asks for `vocab_size` or `num_labels`, its
    `save_pretrained` for all). What the class does elsewhere is its own code over the grown weights: any other
    attribute that no captured operator reads stays.

    Args:
        network: the grown graph.
        model: what it was captured from; it is not changed.
        leaves: as they were given to `gg.trace`.

    Returns:
        The copy, in the graph's mode. It shares its parameters and buffers with `network.module`; those that the
        graph does not have are copies of the model's.

    Raises:
        ExportError: if the class cannot compute the grown graph (a mutation put in what its forward does not call, or
            sizes that it takes from one another differ now), with the first node at which the two part; if it does not
            run in a mode that the graph does not have; or if the model is no module, or another one than the graph has
            grown from.
    """
    require_network(network, "gg.to_model")
    if not isinstance(model, nn.Module):
        raise ExportError(f"gg.to_model wants the model that was captured, a module, not a {type(model).__name__}")
    name = type(model).__name__
    if network.way != "fx":
        raise ExportError(f"{name} was captured with Dynamo, which does not keep the model's modules; {_ADVICE}")
    try:
        return _made(network, model, leaves)
    except (ExportError, CaptureError) as error:
        another = _another(network, model, leaves)
        raise ExportError(another or f"{name} {error}; {_ADVICE}") from error


def _made(network: Network, model: nn.Module, leaves: Leaves) -> nn.Module:
    """The copy; raises with what the class cannot do, in words that follow its name."""
    renaming = Renaming.of(network.module, model)
    marked = _copied(model)
    mark(marked)
    fresh = _copied(model)
    try:
        base = _captured(marked, network.base_inputs or network.inputs, leaves)
        for origin, number in numbers_of(network.module, base.module).items():
            origin.write(fresh, number)
        insert_layers(fresh, _copied(model), renaming, {key: tuple(t.shape) for key, t in _named(network.module)})
        restate_config(fresh, network, model, renaming, numbers_read(base.module))
        _fill(fresh, network.module, base.module, renaming)
        if fresh.training != network.module.training:  # else a part may stay in a mode of its own: a frozen norm
            fresh.train(network.module.training)
        again = _captured(fresh, network.inputs, leaves)
    except (ExportError, CaptureError) as error:
        raise ExportError(f"cannot have the grown sizes: {error}") from error
    apart = parting(network.module, Network(again.module, again.inputs, modes=again.modes), base.module)
    if apart is not None:
        at = f" at `{apart[0]}`" if apart[0] else ""
        raise ExportError(f"does not compute the grown graph: they part{at}, {apart[1]}")
    _refuse_broken_mode(fresh, network, model)
    return fresh


def _refuse_broken_mode(fresh: nn.Module, network: Network, model: nn.Module) -> None:
    """What the mode alone uses that the graph does not have, as an auxiliary head, did not follow the growth.

    Raises:
        ExportError: if the copy does not run in that mode, and the model does.
    """
    mode = next((mode for mode in ("train", "eval") if mode not in network.modes), None)
    if mode is None:
        return
    run = run_in_train if mode == "train" else run_in_eval
    for made, inputs in ((_copied(model), network.base_inputs or network.inputs), (fresh, network.inputs)):
        args, kwargs = inputs.sample()
        try:
            run(made, args, kwargs)
        except Exception as error:  # whatever the class raises
            if made is fresh:
                words = " ".join(str(error).split())
                raise ExportError(
                    f"does not run in {mode} mode, for which the graph does not hold, so that what is used in it alone "
                    f"did not grow ({words:.200}); grow a graph that was captured in {mode} mode"
                ) from error
            return


def _another(network: Network, model: nn.Module, leaves: Leaves) -> str:
    """Why a model is not the one that the graph has grown from; empty where growing it likewise gives these shapes."""
    captured, given = type(network.module).__name__, type(model).__name__
    try:
        inputs = network.base_inputs or network.inputs
        base = _captured(_copied(model), inputs, leaves)
        again = replay(Network(base.module, inputs, modes=base.modes), network.ledger)
        apart = _shapes_apart(dict(_named(network.module)), dict(_named(again.module)))
    except GraphGrowError as error:
        apart = str(error)
    if not apart:
        return ""
    kind = f"another {given}" if captured == given else f"a {captured}, not of this {given}"
    advice = "pass the model that gg.trace was given, and its leaves"
    return f"the graph was captured of {kind}, grown likewise: {apart}; {advice}"


def _shapes_apart(graphs: Mapping[str, torch.Tensor], models: Mapping[str, torch.Tensor]) -> str:
    for name, tensor in graphs.items():
        if name not in models:
            return f"`{name}` of the graph is not there"
        if tensor.shape != models[name].shape:
            return f"`{name}` would be {tuple(models[name].shape)}, and is {tuple(tensor.shape)} in the graph"
    more = next((name for name in models if name not in graphs), None)
    return "" if more is None else f"`{more}` is not there in the graph"


def _captured(model: nn.Module, inputs: InputSpec, leaves: Leaves) -> Capture:
    args, kwargs = inputs.sample()
    return capture(model, args, kwargs, leaves, "fx")


def _copied(model: nn.Module) -> nn.Module:
    """A copy of the modules and of all that they hold, over the same tensors."""
    return copy.deepcopy(model, {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())})


def _fill(fresh: nn.Module, grown: fx.GraphModule, base: fx.GraphModule, renaming: Renaming) -> None:
    """Put the grown tensors, and layers that a pass has put in the place of others, into a copy of the model.

    Raises:
        ExportError: if the class has no place for a module or a tensor.
    """
    parts, before = dict(fresh.named_modules()), dict(base.named_modules())
    named = dict(_named(fresh))
    aliases: dict[int, list[str]] = {}
    for alias, tensor in named.items():
        aliases.setdefault(id(tensor), []).append(alias)
    placed = set()
    for path in dict.fromkeys(str(node.target) for node in grown.graph.nodes if node.op == "call_module"):
        leaf, place = grown.get_submodule(path), renaming.name(path)
        if place not in parts and path not in before:
            raise ExportError(f"there is no place for `{path}`, which growth put in")
        if place in parts and path in before and _is_exchanged(leaf, before[path], parts[place]):
            parent, _, last = place.rpartition(".")
            setattr(parts[parent], last, shallow_copy(leaf))  # called as the one that was there
            placed.add(path)
    old = {name for name, _ in _named(base)}
    for name, tensor in _named(grown):
        place = renaming.name(name)
        within = any(name.startswith(f"{path}.") for path in placed)
        if place not in named and name not in old and not within and not _is_free(parts, place):
            raise ExportError(f"there is no place for `{name}`, which growth put in")
        for alias in aliases.get(id(named.get(place)), (place,) if _is_free(parts, place) and not within else ()):
            if not within or alias != place:  # tied to one in another layer
                _set(parts, alias, tensor)
    resize_attentions(fresh)
    _own_the_rest(fresh, {id(tensor) for _, tensor in _named(grown)})


def _is_exchanged(leaf: nn.Module, base: nn.Module, made: nn.Module) -> bool:
    """Whether a layer is another than it was: by its class, or one of torch's by what no number says (a padding)."""
    if type(leaf) is not type(base):
        return True
    mine, theirs = settings_of(leaf), settings_of(made)  # the class may have notes of its own besides
    return type(leaf).__module__.startswith("torch.nn.") and any(theirs.get(name) != mine[name] for name in mine)


def _named(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Parameters and buffers, those that several modules hold under each of their names."""
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)


def _is_free(parts: dict[str, nn.Module], name: str) -> bool:
    """Whether a module could have a parameter of that name, and has none: a map without bias."""
    path, _, last = name.rpartition(".")
    return path in parts and last in parts[path]._parameters and parts[path]._parameters[last] is None


def _set(parts: dict[str, nn.Module], name: str, tensor: torch.Tensor) -> None:
    path, _, last = name.rpartition(".")
    store = parts[path]._parameters if last in parts[path]._parameters else parts[path]._buffers
    store[last] = tensor  # type: ignore[assignment]
    follow_flat_weights(parts[path])


def _own_the_rest(model: nn.Module, kept: Collection[int]) -> None:
    """Give a model tensors of its own in the place of those that are not among some."""
    copies: dict[int, torch.Tensor] = {}
    for part in model.modules():
        for store in (part._parameters, part._buffers):
            for name, tensor in store.items():
                if tensor is not None and id(tensor) not in kept:
                    store[name] = copies.setdefault(id(tensor), copy.deepcopy(tensor))  # type: ignore[assignment]
        follow_flat_weights(part)
