"""Tables and figures, from records only."""

from graphgrow.report.choice import choice_figure, choice_table
from graphgrow.report.figure import figure
from graphgrow.report.front import Scale, front_figure, front_table
from graphgrow.report.lineage import lineage, lineage_figure
from graphgrow.report.table import table
from graphgrow.report.timeline import timeline

__all__ = [
    "Scale",
    "choice_figure",
    "choice_table",
    "figure",
    "front_figure",
    "front_table",
    "lineage",
    "lineage_figure",
    "table",
    "timeline",
]
