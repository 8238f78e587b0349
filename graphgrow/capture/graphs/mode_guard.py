"""Graphs that hold in one mode alone: whose mode the forward asked for, and the check that refuses the other one."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager

from torch import fx, nn

from graphgrow.layers import OneMode

_NAME = "one_mode"


@contextmanager
def mode_reads(model: nn.Module) -> Iterator[dict[str, None]]:
    """The paths of the modules of a model whose `training` is read within, in the order of the first reads.

    Layers that stay one node are run as copies, so that what they read is not among it: they answer train() and eval()
    themselves.
    """
    paths = {id(part): path for path, part in model.named_modules()}
    found: dict[str, None] = {}

    def read(module: nn.Module) -> bool:
        if id(module) in paths:
            found[paths[id(module)]] = None
        return bool(module.__dict__["training"])

    def write(module: nn.Module, mode: bool) -> None:
        module.__dict__["training"] = mode

    nn.Module.training = property(read, write)  # type: ignore[assignment]  # it is an attribute of each module alone
    try:
        yield found
    finally:
        del nn.Module.training


def guard_mode(module: fx.GraphModule, mode: str, owners: Collection[str]) -> None:
    """Let a graph refuse to run in the mode for which it does not hold.

    Args:
        module: the graph, which takes in the checks, in front of everything that it computes.
        mode: "train" or "eval".
        owners: paths of the modules whose mode decides; empty for the whole model's.
    """
    modes = {path: part.training for path, part in module.named_modules(remove_duplicate=False)}
    first = next(node for node in module.graph.nodes if node.op != "placeholder")
    for owner in owners or ("",):
        check = OneMode(mode == "train", owner)
        check.training = modes.get(owner, module.training)
        path = _free(module, owner)
        module.add_submodule(path, check)
        with module.graph.inserting_before(first):
            module.graph.call_module(path).meta["value"] = None
    module.recompile()


def _free(module: fx.GraphModule, owner: str) -> str:
    """A path below the owner that nothing has."""
    name = _NAME
    taken = {path for path, _ in module.named_modules()} | {name for name, _ in module.named_parameters()}
    while (path := f"{owner}.{name}".lstrip(".")) in taken:
        name += "_"
    return path
