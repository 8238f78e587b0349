"""The digest of the sources changes with what is in them, and with nothing else."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tools.sweep import versions
from tools.sweep.versions import commit_of_sources, source_digest, versions_by_model, versions_for


def test_the_digest_follows_names_and_contents(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    (first / "inner").mkdir(parents=True)
    second.mkdir()
    (first / "inner" / "x.py").write_text("1")
    before = source_digest([first, second])
    assert len(before) == 12
    (first / "notes.txt").write_text("not a source")
    (first / "cli").mkdir()
    (first / "cli" / "y.py").write_text("no row depends on it")
    assert source_digest([first, second]) == before
    (first / "inner" / "x.py").write_text("2")
    changed = source_digest([first, second])
    assert changed != before
    (first / "inner" / "x.py").rename(first / "x.py")
    moved = source_digest([first, second])
    assert moved not in (before, changed)
    (first / "x.py").rename(second / "x.py")
    assert source_digest([first, second]) not in (before, changed, moved)


def test_each_model_states_what_it_depends_on() -> None:
    own, foreign, factory = (versions_for(name) for name in ("graphgrow:mlp", "torchvision:resnet18", "a.b:c"))
    assert set(own) == set(factory) == {"torch", "source"}
    assert set(foreign) == {"torch", "source", "torchvision"}
    assert own["source"] != factory["source"] == foreign["source"]  # the reference models' sources


def test_versions_of_many_models_are_those_of_each() -> None:
    names = ["graphgrow:mlp", "graphgrow:vgg", "torchvision:resnet18", "a.b:c"]
    assert versions_by_model(names) == {name: versions_for(name) for name in names}


def test_the_commit_is_that_of_the_checkout_and_says_where_the_sources_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*arguments: str) -> None:
        given = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        subprocess.run(["git", *given, *arguments], cwd=tmp_path, check=True, capture_output=True)

    package = tmp_path / "graphgrow"
    package.mkdir()
    (package / "__init__.py").write_text("")
    monkeypatch.setattr(versions, "_folder", lambda name: package)
    git("init", "-q")
    assert commit_of_sources() == ""  # beside a repository that does not hold it, as in an environment within one
    git("add", ".")
    git("commit", "-q", "-m", "first", "--date", "2020-01-02T03:04:05")
    commit, _, day = commit_of_sources().partition(" of ")
    assert len(commit) == 7
    assert day.count("-") == 2
    (package / "__init__.py").write_text("changed = True")
    assert commit_of_sources() == f"{commit}+ of {day}"
