"""The folder is the registry: one class in each file, under the file's name."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from graphgrow.rewrite.contract import Mutation
from graphgrow.rewrite.registry import classes_of

PASS = "from graphgrow.rewrite.contract import Mutation\n\n\nclass {name}(Mutation):\n    name = {label!r}\n"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (PASS.format(name="Odd", label="odd-one"), ["odd-one"]),
        (PASS.format(name="Odd", label="odd"), None),
        ("from graphgrow.passes.widen import Widen\n", None),
        (PASS.format(name="Odd", label="odd-one") + "\n\nclass Other(Odd):\n    pass\n", None),
    ],
    ids=["one of its name", "another name", "one of another file", "two"],
)
def test_a_file_holds_one_class_under_its_own_name(
    text: str, found: list[str] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "made_passes"
    folder.mkdir()
    (folder / "__init__.py").write_text("", encoding="utf-8")
    (folder / "odd_one.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        if found is None:
            with pytest.raises(TypeError, match=r"made_passes\.odd_one must hold exactly one pass, named 'odd-one'"):
                classes_of("made_passes", Mutation, "pass")  # type: ignore[type-abstract]
        else:
            assert list(classes_of("made_passes", Mutation, "pass")) == found  # type: ignore[type-abstract]
    finally:
        for name in [name for name in sys.modules if name.startswith("made_passes")]:
            del sys.modules[name]
