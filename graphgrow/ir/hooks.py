"""Hooks on modules: what they are, and which a module has. They see tensors of one shape, and may change any."""

from __future__ import annotations

from torch import nn

_KINDS = {
    "_forward_pre_hooks": "forward pre-hook",
    "_forward_hooks": "forward hook",
    "_backward_pre_hooks": "backward pre-hook",
    "_backward_hooks": "backward hook",
}
_COLLECTING = "transformers.utils.output_capturing"
"""Its hooks hand what layers put out to the forward that asks for it: `output_hidden_states` is traced with them."""

_SAVING = ("_state_dict_hooks", "_state_dict_pre_hooks", "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks")


def hook_of(module: nn.Module, beside: str = "") -> str:
    """Which kind of hook is called when the module is; empty if it has none, beside those of one register."""
    return next((kind for name, kind in _KINDS.items() if name != beside and _called(module, name)), "")


def _called(module: nn.Module, register: str) -> bool:
    hooks = module.__dict__.get(register) or {}
    return any(getattr(hook, "__module__", "") != _COLLECTING for hook in hooks.values())


def saves_its_own_way(module: nn.Module) -> bool:
    """Whether hooks change how the module's state is saved or loaded."""
    return any(module.__dict__.get(name) for name in _SAVING)


def is_register(path: str) -> bool:
    """Whether an attribute, by its path, is one in which a module keeps hooks."""
    return path.rpartition(".")[2].removesuffix("_with_kwargs") in _KINDS


def own_hooks(module: nn.Module) -> None:
    """Let a shallow copy of a module have the same hooks in registers of its own."""
    for name, value in module.__dict__.items():
        if "_hooks" in name and isinstance(value, dict):
            module.__dict__[name] = value.copy()


def drop_hooks(module: nn.Module) -> None:
    """Take all hooks from a module, whose registers are its own."""
    for name, value in module.__dict__.items():
        if "_hooks" in name and isinstance(value, dict):
            value.clear()
