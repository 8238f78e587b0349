"""The demo: a small network grown on real data."""

from graphgrow.demo.digits import run_demo

__all__ = ["run_demo"]
