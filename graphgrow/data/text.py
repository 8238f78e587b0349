"""Text for character-level language models: the manual pages that come with Python, or a file."""

from __future__ import annotations

from pathlib import Path

import torch

from graphgrow.data.parts import Data, Part
from graphgrow.errors import DataError

VOCABULARY = 64


def text(*, file: str | None = None, length: int = 32, most: int = 400_000) -> Data:
    """Windows of characters and the characters behind each: the first eight tenths for training, then a tenth each.

    The 63 most frequent characters are tokens of their own; all others are token 0.

    Args:
        file: UTF-8 text; None is the language reference that Python's `help()` shows, about half a million characters.
        length: of a window.
        most: characters that are used.

    Raises:
        DataError: if the file cannot be read or is too short.
    """
    whole = _manual() if file is None else _read(Path(file))
    whole = whole[:most]
    if len(whole) < 100 * length:
        raise DataError(f"{file or 'the manual'} has {len(whole)} characters; at least {100 * length} are wanted")
    counts: dict[str, int] = {}
    for letter in whole:
        counts[letter] = counts.get(letter, 0) + 1
    frequent = sorted(counts, key=lambda letter: (-counts[letter], letter))[: VOCABULARY - 1]
    tokens = {letter: number for number, letter in enumerate(frequent, 1)}
    stream = torch.tensor([tokens.get(letter, 0) for letter in whole])
    windows = (len(stream) - 1) // length
    inputs = stream[: windows * length].view(windows, length)
    targets = stream[1 : windows * length + 1].view(windows, length)
    first, second = int(0.8 * windows), int(0.9 * windows)
    cuts = ((0, first), (first, second), (second, windows))
    training, validation, test = (Part(inputs[a:b], targets[a:b]) for a, b in cuts)
    source = f"{file or 'the manual pages that come with Python'}, {len(whole):,} characters"
    return Data(training, validation, test, classes=VOCABULARY, source=source)


def _manual() -> str:
    from pydoc_data.topics import topics

    return "\n".join(topics[name] for name in sorted(topics))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path} as UTF-8 text: {error}") from error
