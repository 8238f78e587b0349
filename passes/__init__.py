"""Mutation passes, one a file; the folder is the registry."""
