"""Long expressions break as ruff would break them; short ones stay on their line."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

from graphgrow.source.layout import layout, one_line


def parsed(text: str) -> ast.expr:
    return ast.parse(text, mode="eval").body


def formatted(text: str) -> str:
    command = [sys.executable, "-m", "ruff", "format", "--isolated", "--line-length", "120", "-"]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout


ARGUMENTS = ", ".join(f"argument_{i}" for i in range(8))
MANY = ", ".join(f"argument_{i}" for i in range(12))
LONG = "a_rather_long_name_of_something." * 2


@pytest.mark.parametrize(
    "text",
    [
        "f(x, y=1)",
        f"f({ARGUMENTS})",
        f"f({ARGUMENTS}, option='text')",
        f"f({MANY})",
        f"f({MANY}, *rest, **options)",
        f"nn.ModuleList([f({MANY}), f(1)])",
        f"nn.ModuleList([f({MANY}) for _ in range(12)])",
        f"f({{'key': g({MANY}), **other}})",
        f"f(a=(1, 2), b=[g({MANY})], c=({MANY}))",
        f"f(**{{'0': g({MANY})}})",
        f"self.{LONG}table[self.{LONG}index]",
        f"self.{LONG}table[:, self.{LONG}index]",
        f"self.{LONG}table[:, self.{LONG}index, 2:, self.{LONG}other]",
        "(x ** 2, x.y ** n, f(x) ** 2, x ** (-0.5))",
    ],
)
def test_it_is_what_ruff_makes_of_it(text: str) -> None:
    written = "        value = " + layout(parsed(text), 8, len("value = "))
    frame = "class A:\n    def f(self):\n"
    assert frame + written + "\n" == formatted(f"{frame}        value = {text}\n")


def test_strings_are_in_double_quotes_where_that_needs_no_escapes() -> None:
    assert one_line(parsed("""f('a', "it's", '"', '\\n', b'x')""")) == """f("a", "it's", '"', '\\n', b'x')"""


def test_columns_around_the_expression_count() -> None:
    text = "f(" + "x" * 100 + ")"
    assert "\n" not in layout(parsed(text), 8, 8, 1)
    assert "\n" in layout(parsed(text), 8, 8, 2)
