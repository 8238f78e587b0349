"""The registry of axis rules: which rule speaks for a module class, a function or a tensor method."""

from __future__ import annotations

import importlib
import pkgutil
import types
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import fx, nn
from torch._library.custom_ops import CustomOpDef
from torch._ops import OpOverload, OpOverloadPacket

from graphgrow.errors import RuleError

Rule = Callable[..., Any]
R = TypeVar("R", bound=Rule)

_RULES: dict[object, Rule] = {}
_CONDUCTS: dict[Callable[[nn.Module], bool], Rule] = {}
_LOADED: list[bool] = []
_FUNCTIONS: list[types.FunctionType] = []  # of a user's own, which no trace may look into
_RECORDED = ("torch", "_operator", "operator", "math", "builtins")  # home of the built-in functions that fx sees


def rule(*targets: object) -> Callable[[R], R]:
    """Register an axis rule.

    Args:
        targets: module classes, functions, names of tensor methods (`"view"`), or, for classes of packages
            that may be absent, the qualified name of the class (`"torchvision.ops.misc.Permute"`) or of an operator
            (`"transformers::grouped_mm_fallback"`).

    A rule is called as `rule(call, *args, **kwargs)` with the node's own arguments, in which nodes are replaced
    by their values. It states facts through `call` and returns the node's output value.

    Raises:
        RuleError: if a target has a rule already.
    """
    keys = [_key(target) for target in targets]

    def register(function: R) -> R:
        for key in keys:
            if _RULES.get(key, function) is not function:
                raise RuleError(f"{key!r} has a rule already: {_RULES[key].__qualname__}")
        _RULES.update(dict.fromkeys(keys, function))
        return function

    return register


def conduct_rule(recognises: Callable[[nn.Module], bool]) -> Callable[[R], R]:
    """Register an axis rule for modules that are known by what they do, of whatever class.

    Args:
        recognises: says whether a module that has no rule by its class is of the kind. It must run the module, not
            believe its name: what it accepts is grown by the rule.
    """

    def register(function: R) -> R:
        _CONDUCTS[recognises] = function
        return function

    return register


def axis_rule(*targets: object, replace: bool = False) -> Callable[[R], R]:
    """Register an axis rule for operators of your own, before `gg.trace` is called.

    Args:
        targets: module classes, Python functions, operators of torch.library (what `torch.library.custom_op` returns,
            `torch.ops.mine.twice` or an overload of it), functions of torch, or names of tensor methods. Modules and
            functions of your own with a rule stay one node when a model is traced, also under `torch.fx.wrap`.
        replace: take the place of a rule that is there, one of graphgrow's own included.

    docs/writing_rules.md has examples; `gg.check_rule` holds a rule against its operator.

    Raises:
        RuleError: if a target has a rule already, or is one that no graph ever holds.
    """
    load_rules()  # so that a target of graphgrow's own is found out here
    for target in targets:
        _refuse_unseen(target)
    keys = [_key(target) for target in targets]

    def register(function: R) -> R:
        for key in keys if replace else ():
            _RULES.pop(key, None)
        rule(*targets)(function)
        own = (t for t in targets if isinstance(t, types.FunctionType) and not _is_recorded(t))
        _FUNCTIONS.extend(target for target in own if target not in _FUNCTIONS)
        return function

    return register


def own_functions() -> tuple[types.FunctionType, ...]:
    """Python functions with a rule of a user's: each call of one is a node of a graph, whatever it does inside."""
    return tuple(_FUNCTIONS)


def _key(target: object) -> object:
    """Under what a target is registered: operators of torch.library by their name, whatever object stands for them."""
    if isinstance(target, CustomOpDef):
        return target._qualname
    if isinstance(target, OpOverload):
        return f"{target._schema.name}.{target._overloadname}"
    return target._qualified_op_name if isinstance(target, OpOverloadPacket) else target


def keys_of(target: object) -> tuple[object, ...]:
    """Under what the rule for a node's target may be registered, the most particular first."""
    if isinstance(target, OpOverload):
        return _key(target), target._schema.name
    if isinstance(target, OpOverloadPacket):
        overloads: list[str] = target.overloads()  # type: ignore[no-untyped-call]
        alone = (f"{target._qualified_op_name}.{overloads[0]}",) if len(overloads) == 1 else ()
        return (target._qualified_op_name, *alone)
    return (_key(target),)


def _refuse_unseen(target: object) -> None:
    """Raise a RuleError for what no node of a graph has as its target."""
    if isinstance(target, str):
        if "." not in target and "::" not in target and not hasattr(torch.Tensor, target):
            raise RuleError(
                f"{target!r} is no method of torch.Tensor; wanted one, `package.module.Class`, or `library::operator`"
            )
    elif isinstance(target, type):
        if issubclass(target, torch.autograd.Function):
            raise RuleError(
                f"{target.__name__} is an autograd function: one that treats each entry by itself needs no rule; else "
                "give a function that calls it one"
            )
        if not issubclass(target, nn.Module):
            raise RuleError(f"{target.__name__} is no class of modules")
    elif isinstance(target, types.FunctionType):
        if target.__name__ == "<lambda>":
            raise RuleError("a lambda has no name by which a graph's code could call it; define it by `def`")
    elif isinstance(target, types.BuiltinFunctionType):
        if not _is_recorded(target):
            raise RuleError(
                f"{target.__name__} is compiled, and a trace does not see calls of it; call it in a Python function "
                "that has the rule, or make it an operator by torch.library"
            )
    elif not isinstance(target, (CustomOpDef, OpOverload, OpOverloadPacket)):
        raise RuleError(
            f"no graph holds {target!r} as an operator; wanted a module class (not a module), a function, an operator "
            "of torch.library, or the name of a tensor method"
        )


def _is_recorded(function: Any) -> bool:
    """Whether torch.fx records calls of a function by itself."""
    module = function.__module__ or getattr(function.__self__, "__module__", "")
    return module.partition(".")[0] in _RECORDED


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


def module_rule(module: nn.Module) -> Rule | None:
    """The rule of a module: of exactly its class, since a subclass may do more than its parent, or of its conduct."""
    load_rules()
    found = _RULES.get(type(module)) or _RULES.get(class_name(type(module)))
    return found or next((rule for recognises, rule in _CONDUCTS.items() if recognises(module)), None)


def module_keys(module: nn.Module) -> set[object]:
    """Under what the rule for a module may be registered: its class, that by name, and the conducts that it has."""
    load_rules()
    conducts = {recognises for recognises in _CONDUCTS if recognises(module)}
    return conducts | {type(module), class_name(type(module))}


def rule_of(node: fx.Node, module: nn.Module | None) -> Rule | None:
    """The rule that speaks for a node, or None."""
    load_rules()
    if module is not None:
        return module_rule(module)
    keys = (*keys_of(node.target), *keys_of(plain_of(node.target)))
    return next((_RULES[key] for key in keys if key in _RULES), None)


def plain_of(target: object) -> object:
    """What returns what a method or function of torch in place (`exp_`) would write; other targets as they are."""
    if isinstance(target, str):
        return target[:-1] if target.endswith("_") and not target.endswith("__") else target
    name = getattr(target, "__name__", "")
    owners = (nn.functional, torch) if isinstance(name, str) and name.endswith("_") else ()
    if not any(getattr(owner, name, None) is target for owner in owners):
        return target
    return next((getattr(owner, name[:-1]) for owner in owners if hasattr(owner, name[:-1])), target)


def registered() -> dict[object, Rule]:
    """All rules by target: operators of torch.library by name, conducts by the function that recognises them."""
    load_rules()
    return _RULES | dict[object, Rule](_CONDUCTS.items())
