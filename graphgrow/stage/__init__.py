"""One growth stage: apply, verify, export, benchmark, record."""

from graphgrow.rewrite.cost import count_flops
from graphgrow.stage.run import begin_stage, end_stage, run_stage

__all__ = ["begin_stage", "count_flops", "end_stage", "run_stage"]
