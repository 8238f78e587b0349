"""Build `.types/graphgrow`: links that show the packages where they are imported from, for type checkers.

`passes` and `models` lie at the top of the repository and are installed as `graphgrow.passes` and `graphgrow.models`.
Type checkers know folders only, not setuptools' package-dir.

    python tools/link_view.py
"""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VIEW = Path(".types") / "graphgrow"
ELSEWHERE = ("passes", "models")


def wanted_links(root: Path) -> dict[str, Path]:
    """Name in the view -> file or folder it shows: what `graphgrow` holds, and the folders that lie elsewhere."""
    shown = {path.name: path for path in (root / "graphgrow").iterdir() if path.name != "__pycache__"}
    return shown | {name: root / name for name in ELSEWHERE}


def build_view(root: Path) -> Path:
    """Make the view agree with the folders of today; links to what is gone are removed. Returns its folder."""
    view = root / VIEW
    view.mkdir(parents=True, exist_ok=True)
    links = wanted_links(root)
    for old in view.iterdir():
        if old.name not in links:
            old.unlink()
    for name, path in links.items():
        # Relative, so that the view survives a move of the repository.
        target = os.path.relpath(path, view)
        link = view / name
        if link.is_symlink() and str(link.readlink()) == target:
            continue
        link.unlink(missing_ok=True)
        link.symlink_to(target, target_is_directory=path.is_dir())
    return view


if __name__ == "__main__":
    print(build_view(ROOT).relative_to(ROOT))
