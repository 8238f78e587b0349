"""Grown weights back in the class that the model was written in."""
