"""Whether two networks compute the same function: probes, bounds, verdicts."""
