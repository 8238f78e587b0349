"""`import graphgrow` stays quick: what is heavy is imported when it is needed."""

from __future__ import annotations

import subprocess
import sys

import pytest

import graphgrow as gg

HEAVY = ("onnx", "onnxruntime", "onnxscript", "torchvision", "sklearn", "matplotlib", "networkx", "rich", "typer")


def loaded_after(statement: str) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after the statement."""
    script = f"import sys\n{statement}\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(result.stdout.split())


@pytest.mark.parametrize("statement", ["import graphgrow", "import graphgrow.models", "import graphgrow.passes"])
def test_nothing_heavy_is_imported(statement: str) -> None:
    assert loaded_after(statement) & set(HEAVY) == set()


def test_the_probe_sees_what_is_imported() -> None:
    assert "rich" in loaded_after("import rich")


def test_what_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'graphgrow' has no attribute 'prune'"):
        gg.prune  # noqa: B018
    assert {"trace", "apply"} <= set(dir(gg))
