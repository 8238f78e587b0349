"""Does searching pay? Each table has a script of its own, seeds, and a command that goes on where it was."""
