"""Recipe files: TOML and YAML say the same, and what is wrong is named."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from graphgrow.errors import RecipeError
from graphgrow.recipes.files import parsed, read_recipe
from graphgrow.recipes.tables import from_table


@dataclass(frozen=True)
class Inner:
    rates: dict[str, float] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outer:
    count: int
    inner: Inner = field(default_factory=Inner)
    lines: tuple[str, ...] = ()


TOML = """
count = 3
lines = ["a", "b"]
[inner]
rates = { widen = 1 }
extra = { anything = [1, "x"] }
"""
YAML = """
count: 3
lines: [a, b]
inner:
  rates: {widen: 1}
  extra: {anything: [1, x]}
"""
WHOLE = Outer(3, Inner({"widen": 1.0}, {"anything": [1, "x"]}), ("a", "b"))


def read(path: Path, **changes: object) -> Outer:
    return read_recipe(Outer, "graphgrow.train", ".toml", str(path), changes)


def test_toml_and_yaml_say_the_same(tmp_path: Path) -> None:
    pytest.importorskip("yaml")
    for name, text in (("a.toml", TOML), ("a.yaml", YAML), ("a.yml", YAML)):
        (tmp_path / name).write_text(text, encoding="utf-8")
        assert read(tmp_path / name) == WHOLE
    assert read(tmp_path / "a.yaml", count=5, lines=None).count == 5


def test_what_is_no_table_is_refused() -> None:
    pytest.importorskip("yaml")
    with pytest.raises(RecipeError, match="recipe a is no YAML"):
        parsed("a: [", "a", ".yaml")
    with pytest.raises(RecipeError, match=r"recipe a holds \['b'\], wanted a table"):
        parsed("- b", "a", ".yml")
    with pytest.raises(RecipeError, match="recipe a is no TOML"):
        parsed("a: 3", "a", ".toml")


def test_each_level_is_a_table() -> None:
    with pytest.raises(RecipeError, match=r"recipe: got \[\], wanted a table of count, inner, lines"):
        from_table(Outer, [], "recipe")
    with pytest.raises(RecipeError, match=r"recipe\.inner: got 3, wanted a table of rates, extra"):
        from_table(Outer, {"count": 1, "inner": 3}, "recipe")


def test_bytes_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match=r"the recipe .*a\.toml' cannot be read: .*can't decode byte 0xff"):
        read(tmp_path / "a.toml")


def test_without_pyyaml_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(RecipeError, match=r"to read a, PyYAML is wanted: pip install graphgrow\[yaml\], or write TOML"):
        parsed(YAML, "a", ".yaml")
