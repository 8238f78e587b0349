"""Which name a value gets: that of one that ends, a stream's, or a word that says what it is."""

from __future__ import annotations

import ast

import pytest

from graphgrow.source.naming import Namer, Statement, is_fetch, is_idle, is_module_path, of_graph


def named(code: str, inputs: list[str], reserved: set[str] | None = None) -> list[str]:
    """The statements of the code, whose variables are values of a graph, in their final names."""
    body = ast.parse(code).body
    values = {*inputs} | {
        n.id for n in ast.walk(ast.parse(code)) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
    }
    for node in [node for statement in body for node in ast.walk(statement)]:
        if isinstance(node, ast.Name) and node.id in values:
            node.id = of_graph(node.id)
    statements = [
        Statement(one.targets[0].id.lstrip("%"), one.value)
        if isinstance(one, ast.Assign) and isinstance(one.targets[0], ast.Name)
        else Statement(None, one.value if isinstance(one, ast.Expr) else one)
        for one in body
    ]
    for one in statements:
        one.target = one.target and of_graph(one.target)
    namer = Namer(statements, inputs, reserved or set())
    return [line for one in statements for line in namer.lines(one, 0)]


@pytest.mark.parametrize(
    ("code", "inputs", "lines"),
    [
        ("a = f.g(x)\nb = f.g(a)\nf.r(b)", ["x"], ["x = f.g(x)", "x = f.g(x)", "f.r(x)"]),
        ("a = f.g(x)\nb = x + a\nf.r(b)", ["x"], ["y = f.g(x)", "x = x + y", "f.r(x)"]),
        ("a = f.g(image)\nf.r(a)", ["image"], ["x = f.g(image)", "f.r(x)"]),
        ("a = f.g(x)\nf.r(a, x)", ["x"], ["y = f.g(x)", "f.r(y, x)"]),
        (
            "a = f.p(i)\nb = f.p(i)\nc = f.p(i)\nd = f.p(i)\ne = f.p(i)\nf.r(a, b, c, d, e)",
            ["i"],
            ["x = f.p(i)", "y = f.p(i)", "z = f.p(i)", "p = f.p(i)", "p_2 = f.p(i)", "f.r(x, y, z, p, p_2)"],
        ),
        (
            "a = x.shape\nb = a[0]\nc = a[-1]\nd = b // 2\nf.r(c, d, x)",
            ["x"],
            [
                "shape = x.shape",
                "size_0 = shape[0]",
                "size_last = shape[-1]",
                "d = size_0 // 2",
                "f.r(size_last, d, x)",
            ],
        ),
        (
            "t = x.split(2)\na = t[0]\nb = t[1]\nc = a + b\nf.r(c)",
            ["x"],
            [
                "split = x.split(2)",
                "split_0 = split[0]",
                "split_1 = split[1]",
                "split_0 = split_0 + split_1",
                "f.r(split_0)",
            ],
        ),
        ("a = x.max()\nf.r(a, x)", ["x"], ["y = x.max()", "f.r(y, x)"]),
        ("t = x.max(0)\na = t[0]\nf.r(a)", ["x"], ["max_ = x.max(0)", "max_0 = max_[0]", "f.r(max_0)"]),
        ("a = x + 1\nreturn_ = a\n", ["x"], ["x = x + 1", "x"]),
    ],
)
def test_names(code: str, inputs: list[str], lines: list[str]) -> None:
    assert named(code, inputs) == lines


def test_a_name_that_is_still_read_is_never_given_away() -> None:
    lines = named("a = f.g(x)\nb = f.g(x)\nc = f.h(a, b)\nd = f.h(b, x)\nf.r(c, d, a)", ["x"])
    assert lines == ["y = f.g(x)", "z = f.g(x)", "h = f.h(y, z)", "x = f.h(z, x)", "f.r(h, x, y)"]


def test_reserved_names_are_left_alone() -> None:
    assert named("a = f.g(i)\nf.r(a)", ["i"], {"x", "y", "z", "g"}) == ["g_2 = f.g(i)", "f.r(g_2)"]


def test_what_expressions_are() -> None:
    def parsed(text: str) -> ast.expr:
        return ast.parse(text, mode="eval").body

    assert all(is_module_path(parsed(text)) for text in ("self.a[0].b", 'getattr(self, "a-b").c'))
    assert not any(is_module_path(parsed(text)) for text in ("x.a", "self.a(x)", "self.a[x]", "self.a[:2]"))
    assert is_fetch(parsed("x.shape"))
    assert not is_fetch(parsed("x + 1"))
    assert is_idle(parsed("x.size(0) ** 2 + y[1]"))
    assert not is_idle(parsed("f(x) + 1"))
