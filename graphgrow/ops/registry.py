"""The registry of axis rules: which rule speaks for a module class, a function or a tensor method."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from typing import Any, TypeVar

from torch import fx, nn

Rule = Callable[..., Any]
R = TypeVar("R", bound=Rule)

_RULES: dict[object, Rule] = {}
_LOADED: list[bool] = []


def rule(*targets: object) -> Callable[[R], R]:
    """Register an axis rule.

    Args:
        targets: module classes, functions, names of tensor methods (`"view"`), or, for classes of packages
            that may be absent, the qualified name of the class (`"torchvision.ops.misc.Permute"`) or of an operator
            (`"transformers::grouped_mm_fallback"`).

    A rule is called as `rule(call, *args, **kwargs)` with the node's own arguments, in which nodes are replaced
    by their values. It states facts through `call` and returns the node's output value.

    Raises:
        ValueError: if a target has a rule already.
    """

    def register(function: R) -> R:
        for target in targets:
            if _RULES.get(target, function) is not function:
                raise ValueError(f"{target!r} has a rule already: {_RULES[target].__qualname__}")
            _RULES[target] = function
        return function

    return register


def axis_rule(*targets: object) -> Callable[[R], R]:
    """Register an axis rule for operators of your own: modules, functions, or names of tensor methods.

    A module class with a rule stays one node when a model is traced. Functions are looked up as they stand in the
    graph: of a `torch.library` operator name the overload (`torch.ops.mine.twice.default`), not the decorated
    function; what is marked by `torch.fx.wrap` is traced through, and a rule for it is never asked.
    docs/writing_rules.md has an example.

    Raises:
        ValueError: if a target has a rule already.
    """
    load_rules()  # so that a target of graphgrow's own is found out here
    return rule(*targets)


def load_rules() -> None:
    """Import every file of this folder, so that its rules are registered."""
    if _LOADED:
        return
    package = __name__.rpartition(".")[0]
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        importlib.import_module(f"{package}.{module.name}")
    _LOADED.append(True)


def class_name(module_class: type) -> str:
    """The qualified name by which a class may be registered."""
    return f"{module_class.__module__}.{module_class.__qualname__}"


def module_rule(module_class: type) -> Rule | None:
    """The rule of a module class: of exactly this class, since a subclass may do more than its parent."""
    load_rules()
    return _RULES.get(module_class) or _RULES.get(class_name(module_class))


def rule_of(node: fx.Node, module: nn.Module | None) -> Rule | None:
    """The rule that speaks for a node, or None."""
    load_rules()
    if module is not None:
        return module_rule(type(module))
    return _RULES.get(node.target) or _RULES.get(getattr(node.target, "_qualified_op_name", None))


def registered() -> dict[object, Rule]:
    """All rules by target."""
    load_rules()
    return dict(_RULES)
