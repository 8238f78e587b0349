"""Does searching pay? Each table has a script of its own, seeds, and a command that goes on where it was."""

DEPENDS = (
    "graphgrow/bulk",
    "graphgrow/data",
    "graphgrow/search",
    "graphgrow/signals",
    "graphgrow/train",
    "tools/bench/search",
)
"""What a result depends on, beside the sources that every benchmark names."""
