"""Grown models as plain Python and safetensors, usable without graphgrow."""
