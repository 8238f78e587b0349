"""Recipes that come with a package, and those in files of the user's."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from graphgrow.errors import RecipeError, did_you_mean
from graphgrow.recipes.tables import from_table

R = TypeVar("R")
FOLDER = "recipes"


def recipe_names(package: str, ending: str) -> tuple[str, ...]:
    """The recipes in a package's folder, by the ending of their files, as ".toml"."""
    files = (item.name for item in resources.files(package).joinpath(FOLDER).iterdir())
    return tuple(sorted(name.removesuffix(ending) for name in files if name.endswith(ending)))


def read_recipe(kind: type[R], package: str, ending: str, name: str, changes: Mapping[str, Any] | None = None) -> R:
    """A recipe by name or from a file.

    Args:
        kind: the recipe's dataclass.
        package: whose folder holds those that come along.
        ending: of their files.
        name: of one of them, or the path of a file that ends with .toml, .yaml or .yml.
        changes: values that take the place of the recipe's own, by key.

    Raises:
        RecipeError: if there is no such recipe, it cannot be parsed, or a key or value is not admitted.
    """
    known = recipe_names(package, ending)
    if name in known:
        text = resources.files(package).joinpath(FOLDER, name + ending).read_text(encoding="utf-8")
        table = parsed(text, name, ".toml")
    else:
        path = Path(name)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            if path.exists():  # a folder, or no text
                raise RecipeError(f"the recipe {name!r} cannot be read: {error}") from None
            there = f"graphgrow has {', '.join(known)}; or give the path of a file"
            raise RecipeError(f"there is no recipe {name!r}; {did_you_mean(name, known, there)}") from None
        table = parsed(text, name, path.suffix)
    given = {key: value for key, value in (changes or {}).items() if value is not None}
    return from_table(kind, {**table, **given}, f"recipe {name}")


def parsed(text: str, name: str, suffix: str) -> dict[str, Any]:
    """The table that a text holds, as YAML where the suffix says so, else as TOML.

    Raises:
        RecipeError: if it holds none, or PyYAML is wanted and not there.
    """
    if suffix in (".yaml", ".yml"):
        return _yaml(text, name)
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"the recipe {name} is no TOML: {error}") from None


def _yaml(text: str, name: str) -> dict[str, Any]:
    try:
        import yaml  # type: ignore[import-untyped]
    except ImportError:
        raise RecipeError(f"to read {name}, PyYAML is wanted: pip install graphgrow[yaml], or write TOML") from None
    try:
        table = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"the recipe {name} is no YAML: {error}") from None
    if not isinstance(table, dict):
        raise RecipeError(f"the recipe {name} holds {table!r:.60}, wanted a table")
    return table
