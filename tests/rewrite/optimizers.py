"""Optimizers by name, and a small network that one of them has trained for a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

import graphgrow as gg
from graphgrow.graph import Graph

INPUT = torch.linspace(-1, 2, 15, dtype=torch.float64).reshape(5, 3)
BETAS = (0.9, 0.99)


def net(norm: nn.Module | None = None, outputs: int = 1) -> nn.Sequential:
    """Three linear layers; with a single output the last hidden units are read by one weight each."""
    layers = [nn.Linear(3, 4), norm or nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, outputs)]
    return nn.Sequential(*layers).double()


class Lion(Optimizer):
    """Chen et al. 2023: the sign of a mean of gradients; unknown to graphgrow until it is registered."""

    def __init__(self, parameters: Any, lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    state = self.state[p]
                    mean = state.setdefault("exp_avg", torch.zeros_like(p))
                    state["step"] = state.get("step", 0) + 1
                    p.sub_(mean.lerp(p.grad, 1 - BETAS[0]).sign(), alpha=group["lr"])
                    mean.lerp_(p.grad, 1 - BETAS[1])


gg.register_optimizer(Lion, exp_avg="moment")

Maker = Callable[[Any], Optimizer]
_TINY = 1e-300
MAKERS: dict[str, Maker] = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.0, momentum=0.9),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=0.0, betas=BETAS),
    "amsgrad": lambda parameters: torch.optim.Adam(parameters, lr=0.0, betas=BETAS, amsgrad=True),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=0.0, betas=BETAS, weight_decay=0.0),
    "foreach": lambda parameters: torch.optim.AdamW(parameters, lr=0.0, betas=BETAS, weight_decay=0.0, foreach=True),
    "fused": lambda parameters: torch.optim.AdamW(parameters, lr=0.0, betas=BETAS, weight_decay=0.0, fused=True),
    "nadam": lambda parameters: torch.optim.NAdam(parameters, lr=0.0, betas=BETAS),
    "radam": lambda parameters: torch.optim.RAdam(parameters, lr=0.0, betas=BETAS),
    "adamax": lambda parameters: torch.optim.Adamax(parameters, lr=0.0, betas=BETAS, eps=_TINY),
    "adagrad": lambda parameters: torch.optim.Adagrad(parameters, lr=0.0),
    "rmsprop": lambda parameters: torch.optim.RMSprop(parameters, lr=0.0, alpha=0.75, eps=_TINY),
    "centred": lambda parameters: torch.optim.RMSprop(
        parameters, lr=0.0, alpha=0.75, centered=True, momentum=0.9, eps=_TINY
    ),
    "lion": lambda parameters: Lion(parameters, lr=0.0),
}


def backward(module: nn.Module) -> dict[str, torch.Tensor]:
    module.zero_grad()
    module(INPUT).square().sum().backward()
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


def stepped(graph: Graph, kind: str) -> tuple[Optimizer, dict[str, torch.Tensor]]:
    optimizer = MAKERS[kind](graph.module.parameters())
    gradients = backward(graph.module)
    optimizer.step()
    return optimizer, gradients


def everything(optimizer: Optimizer) -> list[Any]:
    state = [(id(p), {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in s.items()})
             for p, s in optimizer.state.items()]  # fmt: skip
    return [[[id(p) for p in group["params"]] for group in optimizer.param_groups], str(state)]
