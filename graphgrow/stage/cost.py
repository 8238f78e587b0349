"""What one forward pass costs, counted without computing a number."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from graphgrow.ir.meta import meta_twin
from graphgrow.rewrite.network import Network


def count_flops(graph: Network) -> int:
    """Floating-point operations of one forward pass of one sample, in eval mode.

    Counted by torch's FlopCounterMode on the meta device: convolutions, matrix products and attention, a
    multiplication and an addition being two. What is elementwise is left out, as is usual.
    """
    twin = meta_twin(graph.module)
    args, kwargs = graph.inputs.sample(batch_size=1, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        twin(*args, **kwargs)
    return int(counter.get_total_flops())
