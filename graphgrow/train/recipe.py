"""Recipes: what is trained on what, and how it grows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from graphgrow.errors import RecipeError
from graphgrow.network.describe import counted
from graphgrow.recipes import files
from graphgrow.train.policy import make_policy

PACKAGE = "graphgrow.train"
ENDING = ".toml"
PRECISIONS = ("float32", "bfloat16")
STAGES = 4  # of a policy that decides by itself
ANY = float("inf")
LIMITS: dict[str, dict[str, tuple[float, float]]] = {
    "training": {
        **dict.fromkeys(("epochs", "batch_size", "save_every"), (1, ANY)),
        **dict.fromkeys(("lr", "weight_decay"), (0, ANY)),
        **dict.fromkeys(("anneal", "average"), (0, 1)),
    },
    "growth": {
        **dict.fromkeys(("interval", "every"), (1, ANY)),
        **dict.fromkeys(("plateau", "cool_down", "stages", "warm_up", "rollback_after"), (0, ANY)),
        **dict.fromkeys(("parameters", "flops", "latency_ms"), (0, ANY)),
        "until": (0, 1),
        "boost": (1, ANY),
    },
}
"""Between which values the numbers of a recipe's parts are, both included."""


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
        save_every: steps of an epoch from one checkpoint to the next; behind each epoch there is one in any case.
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
    save_every: int = 500


@dataclass(frozen=True)
class GrowthPart:
    """How it grows.

    Attributes:
        policy: by name.
        options: of the policy.
        plateau: rounds without a better validation loss after which it grows; 0 is no plateau.
        interval: epochs from one growth to the next, where there is no plateau.
        cool_down: epochs after a growth in which nothing is asked.
        stages: growths in all, at most; left out, as many as the policy's options list, or else 4.
        until: share of the epochs within which it may grow.
        parameters, flops, latency_ms: the budget; 0 is no limit.
        warm_up: steps within which updates of what is new rise from zero to full pace; left out, as many as suit the
            optimizer (`Pace.under`).
        boost: by how much the steps of weights that have become large are sped up at most from a growth on; 1 is not
            at all (`Pace.boost`).
        forget: whether the optimizer begins anew at each growth (`Pace.forget`); not for RMSprop.
        every: of so many batches one is observed.
        rollback_after: epochs after which a growth is taken back, optimizer and all, if the validation loss has not
            been below what it was before; 0 is never.
        rollback_margin: share by which it may be above that, and the growth stays.
    """

    policy: str = "dnm"
    options: dict[str, Any] = field(default_factory=dict)
    plateau: int = 0
    interval: int = 5
    cool_down: int = 0
    stages: int | None = None
    until: float = 0.6
    parameters: int = 0
    flops: int = 0
    latency_ms: float = 0.0
    warm_up: int | None = None
    boost: float = 1.0
    forget: bool = False
    every: int = 20
    rollback_after: int = 0
    rollback_margin: float = 0.0

    @property
    def most_stages(self) -> int:
        """Growths in all, at most."""
        return self.stages if self.stages is not None else make_policy(self.policy, **self.options).listed or STAGES

    def room(self, epochs: int) -> int | None:
        """How often it is time to grow in so many epochs; None where a plateau decides."""
        if self.plateau:
            return None
        return int(self.until * epochs) // max(self.interval, self.cool_down + 1)


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

    def __post_init__(self) -> None:
        for part, limits in LIMITS.items():
            for key, (least, most) in limits.items():
                value = getattr(getattr(self, part), key, None)
                if value is not None and not least <= value <= most:
                    wanted = f"at least {least:g}" if most == ANY else f"from {least:g} to {most:g}"
                    raise RecipeError(f"recipe {self.name}: {part}.{key} is {value}, wanted {wanted}")
        if self.training.precision not in PRECISIONS:
            raise RecipeError(
                f"recipe {self.name}: precision {self.training.precision!r} is none of {', '.join(PRECISIONS)}"
            )
        if self.growth is not None:
            self._require_room(self.growth)
            if self.growth.forget and self.training.optimizer == "rmsprop":
                raise RecipeError(
                    f"recipe {self.name}: growth.forget and the optimizer rmsprop, whose first steps without state are "
                    "up to ten learning rates long; leave growth.forget out, or take adamw"
                )

    def _require_room(self, growth: GrowthPart) -> None:
        """Refuse a training in which stages that the recipe lists would be left out, whatever happens."""
        listed = make_policy(growth.policy, **growth.options).listed
        if growth.most_stages < listed:
            raise RecipeError(
                f"recipe {self.name}: {counted(listed, 'stage')} are listed, and growth.stages is {growth.stages}; "
                "leave it out, or list fewer"
            )
        room = growth.room(self.training.epochs)
        if room is not None and room < listed:
            last = int(growth.until * self.training.epochs)
            raise RecipeError(
                f"recipe {self.name}: {counted(listed, 'stage')} are listed, but within {counted(last, 'epoch')} it is "
                f"time to grow {counted(room, 'time')}; train longer, set growth.until higher, or growth.interval lower"
            )


def recipe_names() -> tuple[str, ...]:
    """The recipes that come with graphgrow."""
    return files.recipe_names(PACKAGE, ENDING)


def open_recipe(name: str) -> Recipe:
    """A recipe by the name of one that comes with graphgrow, or by the path of a TOML or YAML file.

    Raises:
        RecipeError: if there is no such recipe, it cannot be parsed, or a key or value is not admitted.
    """
    return files.read_recipe(Recipe, PACKAGE, ENDING, name)
