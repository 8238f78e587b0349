"""Training architecture parameters and weights in turns, batch by batch.

First order, as in DARTS (Liu et al., 2019, arXiv:1806.09055): weights step on a training batch, architecture parameters
on a validation batch, each with the other held. Before that comes a warm-up with all choices closed: the network learns
on as it is, and each candidate learns to put out what the operator beside it does, so that no choice is made against
operators merely because they are not trained yet, and opening the choices leaves most of the function as it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import torch
from torch import fx, nn

from graphgrow.data.evaluation import loss_of
from graphgrow.data.parts import Data, batches
from graphgrow.errors import SearchError
from graphgrow.graph import Graph
from graphgrow.ir.called import called_module
from graphgrow.layers import Choice, Zeros
from graphgrow.network.neighbours import in_front_of, parameters_of
from graphgrow.search.progress import Progress
from graphgrow.search.recipe import Alternation, Training
from graphgrow.search.training import rate

NOTES = 60  # points of the course that are kept
WON = 0.5  # probability above which an operator has won its site
Watch = Callable[[int, Sequence["Site"]], None]


@dataclass
class Site:
    """One choice of a graph.

    Attributes:
        name: of the operator beside which it was opened.
        choice: the layer.
        free: for each operator, whether it has no parameters.
        others: the parameters of the candidates, the present operator's aside.
        steps: at which shares were noted.
        shares: at each of them, the probability of each operator, noise aside.
    """

    name: str
    choice: Choice
    free: tuple[bool, ...]
    others: tuple[nn.Parameter, ...] = ()
    steps: list[int] = field(default_factory=list)
    shares: list[tuple[float, ...]] = field(default_factory=list)

    @property
    def leader(self) -> int:
        """The place of the most probable operator."""
        return int(self.choice.alpha.detach().argmax())

    @property
    def certainty(self) -> float:
        """The probability of the most probable operator."""
        return float(self._probabilities().max())

    def note(self, step: int) -> None:
        """Remember the shares at a step."""
        self.steps.append(step)
        self.shares.append(tuple(float(share) for share in self._probabilities()))

    def _probabilities(self) -> torch.Tensor:
        """Of the operators, noise aside."""
        return torch.softmax(self.choice.alpha.detach() / self.choice.temperature, 0)


def sites_of(graph: Graph) -> list[Site]:
    """The choices of a graph, in its order."""
    found = []
    for node in graph.module.graph.nodes:
        part = called_module(graph.module, node)
        if isinstance(part, Choice):
            present, *candidates = node.args
            free = tuple(_is_free(graph.module, value) for value in node.args)
            beside = {used for value in candidates for used in in_front_of(value)} - in_front_of(present)
            others = tuple(p for used in beside for p in parameters_of(graph.module, used))
            found.append(Site(graph.sites.name(present), part, free, others))
    return found


def _is_free(module: nn.Module, node: fx.Node) -> bool:
    """Whether an operator is a skip, a pool or nothing; activations have no parameters either, and are not meant."""
    pools = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
    return isinstance(called_module(module, node), (nn.Identity, Zeros, *pools))


def alternate(
    graph: Graph,
    sites: Sequence[Site],
    data: Data,
    training: Training,
    turns: Alternation,
    seed: int,
    watch: Watch,
    progress: Progress | None = None,
) -> int | None:
    """Train weights and architecture parameters of a graph's module in place.

    Args:
        graph: its choices closed, or as they were where the progress begins; at the end they are open.
        sites: its choices; their courses are noted.
        data: weights see the training part, architecture parameters the validation part.
        training: of the weights.
        turns: how they alternate.
        seed: of the batches and the noise.
        watch: is told the step and the sites, now and then.
        progress: where the steps are kept, and begin; None begins with the first.

    Returns:
        The step at which the guard against skips stopped the architecture parameters; None if it did not.

    Raises:
        SearchError: if a loss is not finite, or there is no choice.
    """
    if not sites:
        raise SearchError("there is no choice to make; open sites with mix-operators first")
    alphas = [site.choice.alpha for site in sites]
    apart = {id(site.choice.opened) for site in sites} | {id(alpha) for alpha in alphas}
    weights = [p for p in graph.module.parameters() if id(p) not in apart and p.requires_grad]
    others = [p for site in sites for p in site.others]
    present = [p for p in weights if all(p is not other for other in others)]
    for_weights = torch.optim.AdamW(weights, lr=training.learning_rate, weight_decay=training.weight_decay)
    for_alphas = torch.optim.Adam(alphas, lr=turns.learning_rate, betas=(0.5, 0.999))
    progress = progress or Progress()
    graph.module.train()
    with torch.random.fork_rng(devices=[]), _searching(sites, turns.hard):
        torch.manual_seed(seed)
        start, found = progress.begin(graph.module, for_weights, for_alphas)
        turned: int = found.get("turned", 0)
        stopped: int | None = found.get("stopped")
        for site, (steps, shares) in zip(sites, found.get("courses", ()), strict=False):
            site.steps, site.shares = list(steps), list(shares)
        fitted = batches(data.training, training.batch_size, seed, start)
        held = batches(data.validation, training.batch_size, seed + 1, turned)
        for step in range(start, turns.steps):
            done = step / turns.steps
            _set(sites, turns, done)
            for group in for_weights.param_groups:
                group["lr"] = training.learning_rate * rate(done, training.warm_up)
            if done < turns.warm_up:
                _warm_up(graph.module, sites, *next(fitted), for_weights, (present, others), step)
            else:
                _step(graph.module, *next(fitted), for_weights, for_alphas, step)
            if stopped is None and done >= turns.warm_up and step % turns.every == 0:
                penalty = turns.entropy * _behind(turns, done) * _entropy(sites)
                _step(graph.module, *next(held), for_alphas, for_weights, step, penalty)
                turned += 1
                won = sum(site.free[site.leader] and site.certainty > WON for site in sites)
                stopped = step if won > turns.most_free * len(sites) else None
            if step % max(1, turns.steps // NOTES) == 0:
                for site in sites:
                    site.note(step)
                watch(step, sites)
            progress.passed(
                step + 1,
                graph.module,
                for_weights,
                for_alphas,
                turned=turned,
                stopped=stopped,
                courses=[(site.steps, site.shares) for site in sites],
            )
        _set(sites, turns, 1.0)
        for site in sites:
            site.note(turns.steps)
    graph.module.eval()
    return stopped


def _step(
    module: nn.Module,
    inputs: torch.Tensor,
    targets: torch.Tensor,
    moving: torch.optim.Optimizer,
    still: torch.optim.Optimizer,
    step: int,
    penalty: torch.Tensor | float = 0.0,
) -> None:
    moving.zero_grad()
    still.zero_grad()
    _finite(loss_of(module(inputs), targets) + penalty, step).backward()  # type: ignore[no-untyped-call]
    moving.step()


def _warm_up(
    module: nn.Module,
    sites: Sequence[Site],
    inputs: torch.Tensor,
    targets: torch.Tensor,
    moving: torch.optim.Optimizer,
    parts: tuple[Sequence[nn.Parameter], Sequence[nn.Parameter]],
    step: int,
) -> None:
    """One step with the choices closed: present operators learn the task, candidates what the present ones put out.

    The candidates' loss is the squared distance, relative to the mean square of the present output; it moves their own
    parameters alone, and so leaves the network's function to the task.
    """
    gaps: list[torch.Tensor] = []

    def compare(_: nn.Module, values: tuple[torch.Tensor, ...]) -> None:
        wanted = values[0].detach()
        scale = wanted.square().mean().clamp(min=1e-12)
        gaps.extend((value - wanted).square().mean() / scale for value in values[1:])

    present, others = parts
    moving.zero_grad()
    with ExitStack() as stack:
        for site in sites:
            stack.callback(site.choice.register_forward_pre_hook(compare).remove)
        loss = loss_of(module(inputs), targets)
    if present:
        _finite(loss, step).backward(inputs=present, retain_graph=True)  # type: ignore[no-untyped-call]
    if others:
        _finite(torch.stack(gaps).sum(), step).backward(inputs=others)  # type: ignore[no-untyped-call]
    moving.step()


def _finite(loss: torch.Tensor, step: int) -> torch.Tensor:
    """The loss.

    Raises:
        SearchError: if it is not finite.
    """
    if not bool(loss.isfinite()):
        raise SearchError(f"the loss is {float(loss.detach())} in step {step}; lower the learning rate")
    return loss


def _set(sites: Sequence[Site], turns: Alternation, done: float) -> None:
    """The temperature, the noise and the opening that belong to a share of the steps.

    The noise falls with the temperature T: an operator is then the largest of a sample with its probability
    softmax(alpha / T), and the weights get used to the operators that will stay. With noise of full strength it would
    be softmax(alpha) to the end, and the sampled networks never the one that is left.
    """
    behind = _behind(turns, done)
    heat = turns.hot * (turns.cold / turns.hot) ** behind
    for site in sites:
        site.choice.temperature.fill_(heat)
        site.choice.gumbel = heat
        site.choice.opened.data.fill_(min(1.0, behind / turns.opening))


def _behind(turns: Alternation, done: float) -> float:
    """How much of the choosing is done, from 0 at the end of the warm-up to 1."""
    return max(0.0, (done - turns.warm_up) / max(1 - turns.warm_up, 1e-9))


def _entropy(sites: Sequence[Site]) -> torch.Tensor:
    """The mean entropy of the choices, each as a share of the highest that it could have."""
    parts = []
    for site in sites:
        logs = torch.log_softmax(site.choice.alpha / site.choice.temperature, 0)
        parts.append(-(logs.exp() * logs).sum() / math.log(len(logs)))
    return torch.stack(parts).mean()


@contextmanager
def _searching(sites: Sequence[Site], hard: bool) -> Iterator[None]:
    """The noise and the opening in the hands of the schedule."""
    for site in sites:
        site.choice.hard = hard
        site.choice.opened.requires_grad_(False)
    try:
        yield
    finally:
        for site in sites:
            site.choice.gumbel, site.choice.hard = 0.0, False
            site.choice.opened.requires_grad_(True)


def decided(sites: Sequence[Site], most_free: float) -> list[int]:
    """For each site the place of the operator that stays: the strongest, skips and the like at most at their share.

    Where more sites are led by operators without parameters, those keep them whose lead over the best operator with
    parameters is the largest.
    """
    kept = [site.leader for site in sites]
    leads: list[tuple[float, int, int]] = []
    for number, site in enumerate(sites):
        if site.free[kept[number]]:
            alpha = site.choice.alpha.detach()
            others = [place for place, free in enumerate(site.free) if not free]
            best = max(others, key=lambda place, alpha=alpha: float(alpha[place]))  # type: ignore[misc]
            leads.append((float(alpha[kept[number]] - alpha[best]), number, best))
    room = int(most_free * len(sites))
    for _, number, best in sorted(leads, reverse=True)[room:]:
        kept[number] = best
    return kept
