"""Tables and figures, from records only."""
