"""Recording a forward with torch.fx: the tracer, what it fetches, and what values decide."""
