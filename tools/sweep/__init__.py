"""The coverage sweep: each model in a process of its own, every registered pass on it, the outcome as a table."""
