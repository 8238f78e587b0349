"""From a module to the constructor call that makes one like it: arguments found in its attributes, then proven.

No table says which argument is which attribute: an argument is the attribute of the same name, and the call holds
once the module that it makes has the same attributes and tensors as the original, built on the meta device.
"""

from __future__ import annotations

import ast
import copy
import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from graphgrow.errors import ExportError
from graphgrow.layers import OwnFunction
from graphgrow.source.imports import Imports
from graphgrow.source.likeness import construction_difference, plain_class

_KEYWORD_ALWAYS = {"kernel_size"}  # nn.Conv2d(16, 32, 3) reads worse
_PLACEMENT = {"device", "dtype"}
_REFUSALS = (TypeError, ValueError, RuntimeError, AttributeError, LookupError, AssertionError, ArithmeticError)


def constructor(module: nn.Module, path: str, imports: Imports) -> ast.expr:
    """The expression that makes a module like this one, weights and mode aside.

    Arguments that make no difference are left out.

    Args:
        module: one of torch.nn, of graphgrow.layers, or of an importable package that `Imports` admits.
        path: its name, for messages.
        imports: takes what the expression refers to.

    Raises:
        ExportError: if its class cannot be imported, or no such call makes the same attributes and tensors.
    """
    if isinstance(module, (nn.Sequential, nn.ModuleList, nn.ModuleDict)) and type(module).__module__.startswith(
        "torch.nn."
    ):
        return _container(module, path, imports)
    if hasattr(module, "parametrizations"):
        raise ExportError(
            f"`{path}` ({type(module).__name__}) has parametrised tensors; materialise them first: "
            "torch.nn.utils.parametrize.remove_parametrizations(module, name)"
        )
    if isinstance(module, OwnFunction):
        raise ExportError(
            f"`{path}` calls the autograd function {module.kind.__name__}, code of the model's that a file which needs "
            "torch and safetensors alone cannot have; gg.save keeps any model"
        )
    kind = plain_class(type(module))
    try:
        called = imports.reference(kind)
    except ExportError as error:
        raise ExportError(f"`{path}` is a {kind.__name__}: {error}") from None
    return _call(module, kind, called, path, imports)


def _call(module: nn.Module, kind: type[nn.Module], called: ast.expr, path: str, imports: Imports) -> ast.Call:
    parameters = _parameters(kind)
    values = _recovered(module, parameters)
    required = [name for name, one in parameters.items() if one.default is one.empty]
    # on trial: only the arguments that turn out to be needed may leave imports behind
    writable = {name for name, value in values.items() if _expression(value, f"{path}.{name}", Imports()) is not None}
    lost = [name for name in required if name not in writable]
    if lost:
        raise ExportError(
            f"`{path}` is a {kind.__name__}, whose constructor wants {', '.join(lost)}, which it keeps in no attribute "
            f"of that name; {_REMEDY}"
        )
    chosen = {name: values[name] for name in required}
    chosen |= {
        name: value
        for name, value in values.items()
        if name in writable and not _is_default(value, parameters[name].default)
    }
    chosen = _needed(module, kind, path, chosen, required)
    arguments: list[ast.expr] = []
    keywords: list[ast.keyword] = []
    for name in [name for name in parameters if name in chosen]:
        expression = _expression(chosen[name], f"{path}.{name}", imports)
        assert expression is not None
        leading = name in required and not keywords and parameters[name].kind is not inspect.Parameter.KEYWORD_ONLY
        if leading and name not in _KEYWORD_ALWAYS:
            arguments.append(expression)
        else:
            keywords.append(ast.keyword(name, expression))
    return ast.Call(called, arguments, keywords)


def _parameters(kind: type[nn.Module]) -> dict[str, inspect.Parameter]:
    """The parameters of the first constructor in the class's line that names any."""
    for base in kind.__mro__:
        if "__init__" not in vars(base):
            continue
        parameters = list(inspect.signature(base.__init__).parameters.values())[1:]  # type: ignore[misc]
        named = {one.name: one for one in parameters if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)}
        if named and not issubclass(kind, nn.RNNBase):
            return {name: one for name, one in named.items() if name not in _PLACEMENT}
        if named and base is nn.RNNBase:  # nn.LSTM passes on all that it is given, and adds the mode
            extra = {"nonlinearity": _keyword("nonlinearity", "tanh")} if issubclass(kind, nn.RNN) else {}
            return {name: one for name, one in (named | extra).items() if name not in {*_PLACEMENT, "mode"}}
    return {}


def _keyword(name: str, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)


def _recovered(module: nn.Module, parameters: Mapping[str, inspect.Parameter]) -> dict[str, Any]:
    """By argument, the value that the module keeps of it; arguments of which it keeps none are left out."""
    values = {}
    for name, parameter in parameters.items():
        part = getattr(module, name.removesuffix("_layer"), None)
        if (type(module), name) in _ELSEWHERE:
            value = _ELSEWHERE[type(module), name](module)
        elif hasattr(module, name):
            value = getattr(module, name)
        elif name.endswith("_layer") and isinstance(part, nn.Module):
            value = type(part)  # timm's habit: the class as act_layer, its instance as act
        else:
            continue
        if isinstance(value, torch.Tensor) or (value is None and isinstance(parameter.default, bool)):
            value = value is not None
        values[name] = value
    return values


# What a module keeps under another name than its constructor's.
_ELSEWHERE: dict[tuple[type[nn.Module], str], Callable[[Any], Any]] = {
    (nn.MultiheadAttention, "bias"): lambda one: one.in_proj_bias is not None,
    (nn.MultiheadAttention, "add_bias_kv"): lambda one: one.bias_k is not None,
}


def _needed(
    module: nn.Module, kind: type[nn.Module], path: str, values: dict[str, Any], required: list[str]
) -> dict[str, Any]:
    """The arguments that are needed to make a module like this one.

    Raises:
        ExportError: if all of them together do not.
    """
    found = _difference(module, kind, values)
    if found is not None:
        arguments = ", ".join(f"{name}={value!r:.40}" for name, value in values.items())
        raise ExportError(
            f"`{path}` cannot be made by its constructor: {kind.__name__}({arguments}) gives another module: {found}; "
            f"{_REMEDY}"
        )
    for name in [name for name in values if name not in required]:
        fewer = {other: value for other, value in values.items() if other != name}
        if _difference(module, kind, fewer) is None:
            values = fewer
    return values


def _difference(module: nn.Module, kind: type[nn.Module], values: Mapping[str, Any]) -> str | None:
    """What differs in a module that is made with these arguments; the constructor's own words if it refuses them."""
    own = {name: _own(value) for name, value in values.items()}
    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about arguments that are only tried
            made = kind(**own)
    except _REFUSALS as error:
        return f"it raises {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return construction_difference(module, made)


def _own(value: Any) -> Any:
    """An argument that the made module may keep: modules as copies on the meta device, so that nothing is shared."""
    return copy.deepcopy(value).to("meta") if isinstance(value, nn.Module) else copy.copy(value)


def _expression(value: Any, path: str, imports: Imports) -> ast.expr | None:
    """The expression for an argument; None where there is none."""
    if isinstance(value, nn.Module):
        return constructor(value, path, imports)
    try:
        return imports.literal(value)
    except ExportError:
        return None


def _container(module: nn.Module, path: str, imports: Imports) -> ast.Call:
    """nn.Sequential, nn.ModuleList and nn.ModuleDict, which take their children."""
    children = {name: constructor(child, f"{path}.{name}", imports) for name, child in module._modules.items() if child}
    called = imports.reference(type(module))
    names, made = list(children), list(children.values())
    keys: list[ast.expr | None] = [ast.Constant(name) for name in names]
    if isinstance(module, nn.ModuleDict):
        return ast.Call(called, [ast.Dict(keys, made)], [])
    if names != [str(number) for number in range(len(names))]:
        pairs: list[ast.expr] = [
            ast.Tuple([ast.Constant(name), one], ast.Load()) for name, one in zip(names, made, strict=True)
        ]
        imports.add("collections", "OrderedDict")
        ordered = ast.Call(ast.Name("OrderedDict", ast.Load()), [ast.List(pairs, ast.Load())], [])
        return ast.Call(called, [ordered], [])
    return ast.Call(called, made if isinstance(module, nn.Sequential) else [ast.List(made, ast.Load())], [])


def _is_default(value: Any, default: Any) -> bool:
    return type(value) is type(default) and bool(value == default)


_REMEDY = "trace without `leaves`, or replace it by modules of torch.nn before gg.trace; gg.save keeps any model"
