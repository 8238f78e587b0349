"""Saving and loading grown models without pickle."""
