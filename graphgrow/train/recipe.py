"""Recipes: what is trained on what, and how it grows, as TOML."""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from graphgrow.errors import TrainingError

T = TypeVar("T")
FOLDER = "recipes"


@dataclass(frozen=True)
class ModelPart:
    """The base.

    Attributes:
        name: `graphgrow:NAME`, `torchvision:NAME` or `package.module:factory`.
        options: of its factory.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DataPart:
    """The data.

    Attributes:
        name: as `load_data` knows it.
        options: of that source.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainingPart:
    """The training.

    Attributes:
        epochs: in all.
        optimizer: "adamw", "adam", "sgd" (momentum 0.9) or "rmsprop".
        lr: learning rate, constant but for the end.
        weight_decay: of the optimizer.
        batch_size: of the mini-batches.
        anneal: share of the epochs, at the end, in which the learning rate falls to zero.
        average: decay of an exponential moving average of the weights, which is then what is measured; 0 is none.
        precision: "float32" or "bfloat16" (by autocast).
        compile: backend of torch.compile between growths; empty is none.
    """

    epochs: int
    optimizer: str = "adamw"
    lr: float = 1e-3
    weight_decay: float = 0.0
    batch_size: int = 64
    anneal: float = 0.25
    average: float = 0.0
    precision: str = "float32"
    compile: str = ""


@dataclass(frozen=True)
class GrowthPart:
    """How it grows.

    Attributes:
        policy: by name.
        options: of the policy.
        plateau: rounds without a better validation loss after which it grows; 0 is no plateau.
        interval: epochs from one growth to the next, where there is no plateau.
        cool_down: epochs after a growth in which nothing is asked.
        stages: growths in all, at most.
        until: share of the epochs within which it may grow.
        parameters, flops, latency_ms: the budget; 0 is no limit.
        warm_up: steps within which updates of what is new rise from zero to full pace.
        every: of so many batches one is observed.
    """

    policy: str = "dnm"
    options: dict[str, Any] = field(default_factory=dict)
    plateau: int = 0
    interval: int = 5
    cool_down: int = 0
    stages: int = 4
    until: float = 0.6
    parameters: int = 0
    flops: int = 0
    latency_ms: float = 0.0
    warm_up: int = 50
    every: int = 20


@dataclass(frozen=True)
class Recipe:
    """One recipe.

    Attributes:
        name: of the recipe; names the run.
        summary: one line on what it does.
        model: the base.
        data: the data.
        training: the training.
        growth: how it grows; left out, it does not.
        seed: of weights, samples and growth.
    """

    name: str
    summary: str
    model: ModelPart
    data: DataPart
    training: TrainingPart
    growth: GrowthPart | None = None
    seed: int = 0

    @classmethod
    def from_toml(cls, text: str, origin: str = "the recipe") -> Recipe:
        """Read a recipe.

        Raises:
            TrainingError: if it is no TOML, or a key is unknown, missing or of another type.
        """
        try:
            data = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise TrainingError(f"{origin} is no TOML: {error}") from None
        recipe = _read(cls, data, origin)
        if recipe.training.epochs < 1 or recipe.training.batch_size < 1:
            raise TrainingError(f"{origin}: epochs and batch_size are at least 1")
        return recipe

    def to_data(self) -> dict[str, Any]:
        """As plain JSON types; `from_data` reads it."""
        return dataclasses.asdict(self)

    @classmethod
    def from_data(cls, data: Any) -> Recipe:
        """Read what `to_data` gave.

        Raises:
            TrainingError: as `from_toml`.
        """
        return _read(cls, {key: item for key, item in data.items() if item is not None}, "the recipe")


def recipe_names() -> tuple[str, ...]:
    """The recipes that come with graphgrow."""
    folder = resources.files("graphgrow.train").joinpath(FOLDER)
    return tuple(sorted(item.name.removesuffix(".toml") for item in folder.iterdir() if item.name.endswith(".toml")))


def open_recipe(name: str) -> Recipe:
    """A recipe by the name of one that comes with graphgrow, or by the path of a file.

    Raises:
        TrainingError: if there is no such recipe, or it cannot be read.
    """
    path = Path(name)
    if path.suffix == ".toml":
        try:
            return Recipe.from_toml(path.read_text(encoding="utf-8"), str(path))
        except (OSError, UnicodeDecodeError) as error:
            raise TrainingError(f"cannot read {path}: {error}") from error
    if name not in recipe_names():
        raise TrainingError(f"there is no recipe {name!r}; there are {', '.join(recipe_names())}, or give a .toml file")
    file = resources.files("graphgrow.train").joinpath(FOLDER, f"{name}.toml")
    return Recipe.from_toml(file.read_text(encoding="utf-8"), name)


def _read(kind: type[T], data: Any, where: str) -> T:
    """A dataclass from a table, strictly.

    Raises:
        TrainingError: names the key.
    """
    if not isinstance(data, dict):
        raise TrainingError(f"{where}: a table is wanted, not {data!r:.60}")
    items = {item.name: item for item in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(data) - set(items))
    if unknown:
        raise TrainingError(f"{where} has no key {', '.join(unknown)}; it has {', '.join(items)}")
    free = (dataclasses.MISSING, dataclasses.MISSING)
    missing = [n for n, item in items.items() if n not in data and (item.default, item.default_factory) == free]
    if missing:
        raise TrainingError(f"{where} lacks {', '.join(missing)}")
    hints = get_type_hints(kind)
    return kind(**{name: _value(hints[name], value, f"{where}: {name}") for name, value in data.items()})


def _value(hint: Any, value: Any, where: str) -> Any:
    kinds = [one for one in get_args(hint) if one is not type(None)]
    if kinds and dataclasses.is_dataclass(kinds[0]):
        hint = kinds[0]
    if dataclasses.is_dataclass(hint):
        return _read(hint, value, where)  # type: ignore[arg-type]
    wanted: Any = (int, float) if hint is float else hint if isinstance(hint, type) else dict
    if not isinstance(value, wanted) or (isinstance(value, bool) and hint is not bool):
        raise TrainingError(f"{where} is {value!r:.60}, wanted {getattr(hint, '__name__', 'a table')}")
    return float(value) if hint is float else value
