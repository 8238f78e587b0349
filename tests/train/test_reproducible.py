"""What a run of one seed leaves behind: nothing."""

from __future__ import annotations

import torch

from graphgrow.train.reproducible import reproducible


def test_draws_follow_from_the_seed_and_nothing_is_left_behind() -> None:
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    drawn = []
    for seed in (3, 3, 4):
        with reproducible(seed):
            assert torch.get_num_threads() == 1
            drawn.append(torch.rand(4))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)
