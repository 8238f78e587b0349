"""A fresh router has tokens for each of its experts."""

from __future__ import annotations

import torch

from graphgrow.blocks.routing import Routing


def test_every_expert_is_the_first_for_some_token() -> None:
    routing = Routing(2, 16, 2)
    routing.start(torch.Generator().manual_seed(0))
    angles = torch.linspace(0, 2 * torch.pi, 5000)
    shares = routing(torch.stack([angles.cos(), angles.sin()], 1))
    assert shares.argmax(1).unique().tolist() == list(range(16))
    assert torch.allclose(routing.router.weight.norm(dim=1), torch.ones(16))
