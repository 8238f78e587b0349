"""From a module to a graph: tracing, expansion of composite layers, and modes kept alive."""
