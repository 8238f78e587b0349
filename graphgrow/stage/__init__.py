"""One growth stage: apply, verify, export, benchmark, record."""

from graphgrow.rewrite.cost import count_flops
from graphgrow.stage.run import run_stage

__all__ = ["count_flops", "run_stage"]
