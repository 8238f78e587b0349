"""Does growing pay? Grown nets against nets from scratch, with seeds, and a command that goes on where it was."""
