"""Benchmarks of the core: one script for each question; docs/speed.md shows what they measured."""
