"""Graphs as they were recorded: what they overwrite, one for both modes, spelling, layers raised from operators."""
