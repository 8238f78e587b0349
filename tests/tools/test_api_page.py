"""The page of the public surface is that of the present docstrings."""

from __future__ import annotations

import graphgrow as gg
from tools.api_page import PAGE, page


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run python tools/api_page.py"


def test_every_public_name_and_every_pass_is_there() -> None:
    text = page()
    for name in gg.__all__:
        assert f"gg.{name}\n" in text or f"| `{name}` |" in text
    for name in gg.pass_names():
        assert f"\n### {name}\n" in text
    assert "    way: str = 'auto'," in text
    assert ") -> Verdict" in text
    assert "- `mutations(pass_name: str | None = None)`: The mutations that apply here" in text
