"""Models by name, tracing them, and grown models on disk."""
