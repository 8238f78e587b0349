"""Layers whose weights are computed from others before each call: written out, so that those can grow."""

from __future__ import annotations

from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from graphgrow.ir.hooks import hook_of
from graphgrow.ops.registry import module_rule

OLDER = (WeightNorm, SpectralNorm)
"""Hooks of the older weight_norm and spectral_norm, which compute a weight before each call."""


def is_parametrised(module: nn.Module) -> bool:
    """Whether weights of a module are computed by parametrisations, or by torch's older hooks alone."""
    return parametrize.is_parametrized(module) or _by_hook(module)


def _by_hook(module: nn.Module) -> bool:
    hooks = list(module._forward_pre_hooks.values())
    if not hooks or not all(isinstance(hook, OLDER) for hook in hooks):
        return False
    return hook_of(module, beside="_forward_pre_hooks") == ""


def computed_weights(model: nn.Module) -> set[str]:
    """Paths of the attributes into which torch's older hooks put weights before each call."""
    return {
        f"{path}.{hook.name}".lstrip(".")
        for path, module in model.named_modules()
        for hook in module._forward_pre_hooks.values()
        if isinstance(hook, OLDER)
    }


def parametrisation_notes(path: str, module: nn.Module) -> list[str]:
    """What a user should know of parametrisations through which no axis grows."""
    lists = module._modules.get("parametrizations") or nn.ModuleDict()
    return [
        f"`{path}.{name}` is parametrised by {type(step).__name__}, through which its axes do not grow; "
        f'torch.nn.utils.parametrize.remove_parametrizations(module, "{name}") makes it a parameter again'
        for name, steps in lists.named_children()
        for step in steps.children()
        if type(step).__module__.startswith("torch.") and module_rule(step) is None
    ]
