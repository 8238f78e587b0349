"""Whether a generated file makes the graph's own module again: its tensors, its modes, its outputs to the bit."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from graphgrow.errors import ExportError
from graphgrow.export.program import first_cause
from graphgrow.network.network import Network
from graphgrow.source.likeness import bits, difference
from graphgrow.source.tree import Tree, is_channels_last
from graphgrow.verification.copies import refill

_SEED = 0


def check_agreement(file: Path, network: Network) -> tuple[str, ...]:
    """Run a generated file, load its weights, and compare the module with the graph's.

    Compared are all tensors, flags and attributes, and the outputs on random inputs, to the bit: in eval and in train
    mode (with equal random states, and the buffers as they are afterwards), with the weights as they are and with
    lively ones, since a head of zeros agrees with anything.

    Args:
        file: the Python file, with its weights beside it.
        network: what it was made from; it is not changed.

    Returns:
        What could not be compared, one sentence each.

    Raises:
        ExportError: if anything differs, or the file cannot be run.
    """
    other = {"eval", "train"} - network.modes
    notes = [f"not compared in {mode} mode, in which the graph refuses to run" for mode in other]
    with torch.no_grad(), torch.random.fork_rng():
        rebuilt = _loaded(file)
        found = difference(network.module, rebuilt, Tree(network.module).holder_names())
        if found is not None:
            raise ExportError(
                f"the generated {type(network.module).__name__} is not the graph's: {found}; nothing was written. Undo "
                "what was changed on the module by hand, or keep it with gg.save"
            )
        for original in (_own(network.module), _own(refill(network, _SEED).module)):
            twin = _with_tensors_of(copy.deepcopy(rebuilt).to(network.inputs.device), original)
            for mode in sorted(network.modes):
                training = mode == "train"
                notes += _compare(original.train(training), twin.train(training), network)
    return tuple(dict.fromkeys(notes))


def _loaded(file: Path) -> nn.Module:
    """What the file's `load()` returns; the file is imported under no name that anything else could find."""
    specification = importlib.util.spec_from_file_location("generated_model", file)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    try:
        specification.loader.exec_module(module)
        rebuilt = module.load()
    except Exception as error:  # whatever the generated code raises, it may not be published
        raise ExportError(
            f"the generated file does not run: {first_cause(error)}; nothing was written. Keep the model with gg.save"
        ) from error
    assert isinstance(rebuilt, nn.Module)
    return rebuilt


def _own(module: nn.Module) -> nn.Module:
    """A deep copy whose tensors lie in memory as those of the file do: densely, channels last where they were."""
    twin = copy.deepcopy(module)
    for tensor in (*twin.parameters(), *twin.buffers()):
        if not is_channels_last(tensor):
            tensor.data = tensor.data.contiguous()
    return twin


def _with_tensors_of(rebuilt: nn.Module, original: nn.Module) -> nn.Module:
    """The rebuilt module, holding the numbers of the original."""
    sources = dict([*original.named_parameters(), *original.named_buffers()])
    for name, tensor in [*rebuilt.named_parameters(), *rebuilt.named_buffers()]:
        tensor.data.copy_(sources[name])
    return rebuilt


def _compare(original: nn.Module, twin: nn.Module, network: Network) -> Iterator[str]:
    """Run both from the same random state; yields why there is nothing to compare, where the original fails."""
    mode = "train" if original.training else "eval"
    before = copy.deepcopy(original)
    try:
        wanted = _outcome(original, network)
    except Exception as error:  # the user's own code runs here
        if mode == "eval":
            raise ExportError(
                f"the graph fails on inputs like its examples: {first_cause(error)}; trace it with inputs that it "
                "accepts"
            ) from error
        yield f"not compared in train mode, where the graph itself fails: {first_cause(error)}"
        return
    try:
        found = _outcome(twin, network)
    except Exception as error:  # the generated code runs here
        raise ExportError(
            f"the generated code fails in {mode} mode, and the graph does not: {first_cause(error)}; nothing was "
            "written. Keep the model with gg.save"
        ) from error
    wrong = _first_difference(wanted, found)
    if wrong is None:
        return
    if _first_difference(wanted, _outcome(before, network)) is not None:
        raise ExportError(
            f"{wrong} differs between two runs of the graph itself on the same input in {mode} mode, so nothing can be "
            "compared; on a GPU, export a copy on the CPU, or set torch.use_deterministic_algorithms(True)"
        )
    raise ExportError(
        f"the generated code disagrees with the graph in {mode} mode: {wrong} is not the same to the bit; nothing was "
        "written. Keep the model with gg.save"
    )


def _outcome(module: nn.Module, network: Network) -> dict[str, Any]:
    """The outputs on a random input, and the buffers afterwards."""
    args, kwargs = network.inputs.sample(_SEED)
    torch.manual_seed(_SEED)
    leaves = pytree.tree_flatten_with_path(module(*args, **kwargs))[0]
    outputs = {f"output{pytree.keystr(path)}": leaf for path, leaf in leaves}
    return outputs | {f"buffer {name}": buffer.clone() for name, buffer in module.named_buffers()}


def _first_difference(wanted: dict[str, Any], found: dict[str, Any]) -> str | None:
    if set(wanted) != set(found):
        return f"the structure of the output ({', '.join(sorted(set(wanted) ^ set(found))[:3])})"
    return next((name for name, value in wanted.items() if not _equal(value, found[name])), None)


def _equal(one: Any, other: Any) -> bool:
    if not isinstance(one, torch.Tensor):
        return type(one) is type(other) and bool(one == other)
    if not isinstance(other, torch.Tensor) or (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    return torch.equal(bits(one), bits(other))
