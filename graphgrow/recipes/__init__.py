"""Recipes: frozen dataclasses from TOML or YAML files, by name or by path."""
