"""The commuting square of an axis rule, checked against the operator itself."""
