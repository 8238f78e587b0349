"""The view for type checkers shows every package where it is imported from, and follows the folders."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "link_view.py"


@pytest.fixture(scope="module")
def link_view() -> ModuleType:
    # By path: tools is a folder of scripts, not a package.
    spec = importlib.util.spec_from_file_location("link_view", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in ("graphgrow", "graphgrow/ir", "passes", "models"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").write_text(f'"""{folder}"""\n', encoding="utf-8")
    return tmp_path


def test_the_view_holds_every_package(link_view: ModuleType, root: Path) -> None:
    view = link_view.build_view(root)
    assert sorted(path.name for path in view.iterdir()) == ["__init__.py", "ir", "models", "passes"]
    assert (view / "passes" / "__init__.py").read_text(encoding="utf-8") == '"""passes"""\n'
    assert not (view / "ir").readlink().is_absolute()


def test_the_view_follows_the_folders(link_view: ModuleType, root: Path) -> None:
    link_view.build_view(root)
    (root / "graphgrow" / "errors.py").touch()
    (root / "graphgrow" / "ir" / "__init__.py").unlink()
    (root / "graphgrow" / "ir").rmdir()
    view = link_view.build_view(root)
    assert sorted(path.name for path in view.iterdir()) == ["__init__.py", "errors.py", "models", "passes"]
