"""Searching for an architecture: evolution with inherited weights, and differentiable choice."""
