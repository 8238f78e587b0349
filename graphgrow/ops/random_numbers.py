"""Random numbers of a tensor's own shape: each new unit would move all that are drawn after it."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F

from graphgrow.ir import flow as fl
from graphgrow.ir.value import Value
from graphgrow.ops.call import Call
from graphgrow.ops.registry import rule


@rule(F.gumbel_softmax, torch.rand_like, torch.randn_like, torch.randint_like, torch.bernoulli, "bernoulli",
      torch.poisson)  # fmt: skip
def drawn(call: Call, input: Value, *args: Any, **kwargs: Any) -> Value:
    """Numbers drawn for each unit of the input."""
    call.freeze(input.axes, "random numbers are drawn for each of its units")
    return call.output(input.axes, fl.Pointwise((call.operand(input),)))
