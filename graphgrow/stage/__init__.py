"""One growth stage: apply, verify, export, benchmark, record."""
