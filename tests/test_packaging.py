"""What pyproject.toml and constraints.txt promise, compared with the folders."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def package_folders(package_dir: dict[str, str]) -> dict[str, Path]:
    """Dotted name of each package -> its folder, for every folder with an `__init__.py`."""
    found = {}
    for package, folder in package_dir.items():
        for init in (ROOT / folder).rglob("__init__.py"):
            parts = init.parent.relative_to(ROOT / folder).parts
            found[".".join([package, *parts])] = init.parent
    return found


def pinned() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pairs}


def requirement_names(project: dict[str, Any]) -> set[str]:
    wanted = [*project["project"]["dependencies"], *project["project"]["optional-dependencies"]["dev"]]
    return {re.sub(r"[-_.]+", "-", re.split(r"[<>=!~\[ ]", line)[0]).lower() for line in wanted}


def test_the_packages_are_the_folders(project: dict[str, Any]) -> None:
    setuptools = project["tool"]["setuptools"]
    listed = setuptools["packages"]
    assert sorted(listed) == sorted(set(listed))
    assert set(listed) == set(package_folders(setuptools["package-dir"]))


def test_no_source_lies_in_a_folder_that_is_no_package(project: dict[str, Any]) -> None:
    package_dir = project["tool"]["setuptools"]["package-dir"]
    folders = set(package_folders(package_dir).values())
    sources = {path for folder in package_dir.values() for path in (ROOT / folder).rglob("*.py")}
    assert {path for path in sources if path.parent not in folders} == set()


def test_py_typed_is_shipped(project: dict[str, Any]) -> None:
    assert "py.typed" in project["tool"]["setuptools"]["package-data"]["graphgrow"]
    assert (ROOT / "graphgrow" / "py.typed").is_file()


def test_the_console_script_is_the_command_line(project: dict[str, Any]) -> None:
    assert project["project"]["scripts"] == {"graphgrow": "graphgrow.cli.main:main"}


def test_every_requirement_is_pinned(project: dict[str, Any]) -> None:
    assert requirement_names(project) <= set(pinned())


def test_torchvision_is_the_one_that_belongs_to_torch() -> None:
    assert (pinned()["torch"], pinned()["torchvision"]) == ("2.13.0", "0.28.0")


def test_the_lower_bounds_that_security_asks_for(project: dict[str, Any]) -> None:
    assert {"torch>=2.10", "onnx>=1.21"} <= set(project["project"]["dependencies"])
