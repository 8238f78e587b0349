"""Whether a rewrite kept the function."""
