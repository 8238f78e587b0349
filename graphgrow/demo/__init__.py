"""The demo: a small network grown on real data."""
