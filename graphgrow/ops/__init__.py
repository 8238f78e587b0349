"""Axis rules, one file for each operator family; the folder is the registry."""
