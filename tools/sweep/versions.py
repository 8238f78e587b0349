"""What a row was made with, so that rows from older sources are seen and can be made again."""

from __future__ import annotations

import hashlib
import importlib.util
import subprocess
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

APART = frozenset(
    ("bench", "bulk", "cli", "data", "demo", "pretrained", "report", "search", "signals", "source", "stage", "train")
)
"""What no row depends on."""


def versions_for(model: str) -> dict[str, str]:
    """Versions of torch and (for its models) torchvision, and a digest of graphgrow's sources.

    The reference models' sources count for `graphgrow:` models alone.
    """
    source = model.partition(":")[0]
    packages = ["graphgrow", "graphgrow.passes", *(["graphgrow.models"] if source == "graphgrow" else [])]
    found = {"torch": version("torch"), "source": source_digest([_folder(package) for package in packages])}
    if source in ("torchvision", "transformers", "timm"):
        found[source] = version(source)
    return found


def versions_by_model(models: Iterable[str]) -> dict[str, dict[str, str]]:
    """`versions_for` each model; the sources are read once for all models from one place."""
    places = {model: model.partition(":")[0] for model in models}
    found = {place: versions_for(place) for place in set(places.values())}
    return {model: found[place] for model, place in places.items()}


def commit_of_sources() -> str:
    """The commit of graphgrow's checkout and its day, as in `1a2b3c4 of 2026-11-28`.

    A `+` follows the commit where the sources differ from it; nothing where they are of no checkout, as in a wheel.
    """
    place = _folder("graphgrow")
    try:
        _git(place, "ls-files", "--error-unmatch", "__init__.py")
        commit, day = _git(place, "log", "-1", "--format=%h %cs", "--abbrev=7").split()
        passes = _folder("graphgrow.passes")
        changed = _git(place, "status", "--porcelain", "--", str(place), str(passes))
    except (OSError, subprocess.CalledProcessError):  # no git, or no checkout
        return ""
    return f"{commit}{'+' if changed else ''} of {day}"


def source_digest(folders: list[Path]) -> str:
    """12 hexadecimal digits over the names and contents of the Python files below some folders, those `APART` aside."""
    digest = hashlib.sha256()
    for number, folder in enumerate(folders):
        for path in sorted(folder.rglob("*.py")):
            if path.relative_to(folder).parts[0] in APART:
                continue
            data = path.read_bytes()
            digest.update(f"{number}/{path.relative_to(folder).as_posix()}:{len(data)}\n".encode())
            digest.update(data)
    return digest.hexdigest()[:12]


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def _folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent
