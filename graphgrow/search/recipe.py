"""What a search is told: the recipe, read from TOML, by name or from a file."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from graphgrow.errors import RecipeError
from graphgrow.recipes import files
from graphgrow.rewrite.registry import pass_names
from graphgrow.search.objectives import objective

UNITS = ("steps", "flops", "seconds")
DECIDE = ("alpha", "random", "present")
R = TypeVar("R")


@dataclass(frozen=True)
class Task:
    """What is learned, and by what.

    Attributes:
        model: name or factory of the base: `graphgrow:NAME`, `torchvision:NAME`, `package.module:factory`.
        data: as `load_data` knows it: `digits`, `patterns`, `text`, or `package.module:function`, which returns a
            `graphgrow.data.parts.Data`.
        seed: of the base's weights.
        passes: modules that register passes of your own (`gg.register_pass`); they are imported wherever the recipe is
            read, in each worker too.
    """

    model: str
    data: str = "digits"
    seed: int = 0
    passes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for module in self.passes:
            try:
                importlib.import_module(module)
            except ImportError as error:
                raise RecipeError(
                    f"the recipe cannot be followed: passes names {module}, which cannot be imported: {error}; is its "
                    "folder on PYTHONPATH?"
                ) from error


@dataclass(frozen=True)
class Training:
    """How candidates are trained: Adam, a short warm-up, then a cosine down to zero.

    Attributes:
        batch_size: of the mini-batches.
        learning_rate: at its highest.
        weight_decay: decoupled (AdamW).
        warm_up: share of the steps in which the learning rate rises.
        seeds: trainings of each candidate, with the data in another order; the first one's weights are kept.
    """

    batch_size: int = 64
    learning_rate: float = 3e-3
    weight_decay: float = 0.0
    warm_up: float = 0.1
    seeds: int = 1


@dataclass(frozen=True)
class Budget:
    """How long candidates are trained.

    Attributes:
        unit: steps; flops (of forward and backward passes, three times the forward ones'); or seconds, which makes a
            study depend on the machine.
        base: of the base.
        child: of every other candidate, in whole.
        rungs: 1 trains each child in one go; more halve successively: each generation is trained for a part, and only
            the share `keep` of it, best by rank and crowding, is trained on (Jamieson and Talwalkar, 2016,
            arXiv:1502.07943).
        keep: share that goes on to the next rung.
    """

    unit: str = "steps"
    base: float = 1600
    child: float = 1600
    rungs: int = 1
    keep: float = 0.5

    def amount(self, rung: int) -> float:
        """What is spent on a child in one rung: all rungs together are `child`, each 1 / `keep` times those before."""
        reached = [self.child * self.keep ** (self.rungs - 1 - number) for number in range(self.rungs)]
        return reached[rung] - (reached[rung - 1] if rung else 0.0)


@dataclass(frozen=True)
class Variation:
    """How children differ from their parents.

    Attributes:
        rates: how often a pass is drawn, relative to the others; 1 for those that are not named.
        scaling: how often every width grows by one factor, up to 2, relative to the rates: several mutations, which
            count as one. Single ones reach a wider net in many small steps only.
        most: mutations of one child: a number from 1 to this, each equally often.
        crossover: share of children with two parents.
        tries: draws after which a candidate without an admissible mutation is recorded as failed.
        inherit: whether children start from their parent's weights; else from fresh ones, as a control.
    """

    rates: Mapping[str, float] = field(default_factory=dict)
    scaling: float = 0.0
    most: int = 2
    crossover: float = 0.2
    tries: int = 40
    inherit: bool = True


@dataclass(frozen=True)
class Limits:
    """What no candidate may exceed; a candidate that fails is recorded, and the search goes on.

    Attributes:
        parameters: number of scalar parameters.
        flops: of one forward pass of one sample.
        seconds: of one evaluation.
        memory_gib: that one evaluation may take beyond what a worker has at the start.
        retries: how often an evaluation is begun again whose worker died, hung or ran out of memory.
    """

    parameters: int | None = None
    flops: int | None = None
    seconds: float = 600.0
    memory_gib: float | None = None
    retries: int = 1


@dataclass(frozen=True)
class Goal:
    """One objective of a search.

    Attributes:
        name: of the objective.
        worst: the value at which a candidate adds nothing to the hypervolume; by default 4 times the base's, and for
            an accuracy 0.
    """

    name: str
    worst: float | None = None


@dataclass(frozen=True)
class Evolution:
    """The recipe of an evolution.

    Attributes:
        objectives: at least one; the first is the one that tables are sorted by.
        population: survivors of each generation.
        offspring: children of each generation.
        generations: behind the base.
        parents: `population`, by binary tournaments of rank and crowding; `base` makes it a random search.
        seed: of all draws.
    """

    task: Task
    objectives: tuple[Goal, ...]
    population: int = 10
    offspring: int = 10
    generations: int = 8
    parents: str = "population"
    seed: int = 0
    budget: Budget = field(default_factory=Budget)
    training: Training = field(default_factory=Training)
    variation: Variation = field(default_factory=Variation)
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        names = [objective(goal.name).name for goal in self.objectives]
        _want(bool(names) and len(set(names)) == len(names), f"objectives are {names}; name each once, at least one")
        _want(self.budget.unit in UNITS, f"budget.unit is {self.budget.unit!r}; there are {', '.join(UNITS)}")
        _want(self.parents in ("population", "base"), f"parents is {self.parents!r}; there are population and base")
        _want(min(self.population, self.offspring) >= 1, "population and offspring are whole numbers from 1 on")
        _want(self.generations >= 0 and self.seed >= 0, "generations and seed are whole numbers from 0 on")
        _want(self.budget.rungs >= 1 and 0 < self.budget.keep < 1, "rungs is at least 1, keep between 0 and 1")
        _want(self.variation.most >= 1 and self.training.seeds >= 1, "most and seeds are whole numbers from 1 on")
        _want_passes("variation.rates", self.variation.rates)
        rates = [*self.variation.rates.values(), self.variation.scaling]
        _want(all(rate >= 0 for rate in rates), "rates and scaling are numbers from 0 on")
        _want(0 <= self.variation.crossover <= 1, "crossover is a share, from 0 to 1")
        _want(min(self.budget.base, self.budget.child) >= 0, "budgets are numbers from 0 on")


@dataclass(frozen=True)
class Alternation:
    """How architecture parameters and weights are trained in turns.

    Attributes:
        steps: of the weights, in each round.
        every: steps of the weights for one step of the architecture parameters.
        learning_rate: of the architecture parameters (Adam).
        hot: temperature at the start; it falls with the share of the steps that is done, so that it arrives at `cold`
            however long a round is.
        cold: temperature at the end.
        opening: share of the steps behind the warm-up in which the choices open.
        warm_up: share of the steps in which the choices are closed: the network is trained as it is, and each candidate
            to put out what the present operator does.
        hard: whether each step samples one operator of each choice, rather than a mixture.
        entropy: weight of the mean entropy of the choices, in [0, 1], in the loss of the architecture parameters at the
            end; it rises with the share of the steps that is done.
        most_free: share of the sites that may end with an operator without parameters (a skip, a pool, nothing): where
            more of them lead, the architecture parameters are stopped (Liang et al., "DARTS+", 2019, arXiv:1909.06035).
    """

    steps: int = 600
    every: int = 2
    learning_rate: float = 0.03
    hot: float = 1.0
    cold: float = 0.1
    opening: float = 0.4
    warm_up: float = 0.2
    hard: bool = False
    entropy: float = 0.1
    most_free: float = 0.34


@dataclass(frozen=True)
class Choosing:
    """The recipe of a differentiable search: choice and growth in turns.

    Attributes:
        sites: patterns of the sites that are opened, as `stages.*.conv*`.
        choices: the operators to choose between, besides the present one; none for all usual ones.
        rounds: of opening, choosing and settling.
        grow: passes of which one random mutation is applied before each round but the first.
        decide: `alpha`; as controls `random`, a random choice from the same candidates, or `present`, none but the
            present operators.
        base: steps of training before the first round.
        finish: steps of training after each round.
        save_every: steps from one checkpoint to the next, where there is a folder for them.
        seed: of all draws.
    """

    task: Task
    sites: tuple[str, ...] = ("*",)
    choices: tuple[str, ...] = ()
    rounds: int = 1
    grow: tuple[str, ...] = ()
    decide: str = "alpha"
    base: int = 600
    finish: int = 300
    save_every: int = 100
    seed: int = 0
    training: Training = field(default_factory=Training)
    alternation: Alternation = field(default_factory=Alternation)

    def __post_init__(self) -> None:
        turns = self.alternation
        _want_passes("grow", self.grow)
        _want(self.decide in DECIDE, f"decide is {self.decide!r}; there are {', '.join(DECIDE)}")
        least = min(self.rounds, turns.every, self.save_every)
        _want(least >= 1, "rounds, every and save_every are whole numbers from 1 on")
        _want(min(self.base, self.finish, turns.steps, self.seed) >= 0, "steps and seed are whole numbers from 0 on")
        _want(0 < turns.cold <= turns.hot, "the temperature falls from hot to cold, which is above 0")
        _want(0 <= turns.warm_up <= 1, "warm_up is a share, from 0 to 1")
        _want(0 < turns.opening <= 1 and 0 <= turns.most_free <= 1, "opening and most_free are shares, up to 1")


def _want(holds: bool, text: str) -> None:
    if not holds:
        raise RecipeError(f"the recipe cannot be followed: {text}")


def _want_passes(where: str, names: Iterable[str]) -> None:
    unknown = [name for name in names if name not in pass_names()]
    _want(not unknown, f"{where} names {', '.join(unknown)}; there are {', '.join(pass_names())}")


def recipe_names(kind: str) -> tuple[str, ...]:
    """The recipes that graphgrow brings along, of one kind: `evolve` or `search`."""
    return files.recipe_names("graphgrow.search", f".{kind}.toml")


def read_recipe(kind: type[R], word: str, name: str, changes: Mapping[str, Any] | None = None) -> R:
    """A recipe by name or from a file.

    Args:
        kind: the recipe's dataclass.
        word: of the command that it is for, `evolve` or `search`.
        name: of a recipe that graphgrow brings along, or the path of a TOML or YAML file.
        changes: values that take the place of the recipe's own, by key.

    Raises:
        RecipeError: if there is no such recipe, it cannot be parsed, or a key or value is not admitted.
    """
    return files.read_recipe(kind, "graphgrow.search", f".{word}.toml", name, changes)
