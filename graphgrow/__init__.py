"""graphgrow: change the architecture of a torch model while it keeps its function."""
