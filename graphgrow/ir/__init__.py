"""The graph's data: axis terms, flows, facts, positions, and the editor. Imports torch alone."""
