"""A line for each source: captured, in which modes, how much of it grows, what was preserved."""

from __future__ import annotations

from tools.sweep.row import PassCounts, Row
from tools.sweep.sources import HEAD, by_source


def row(model: str, growable: float, modes: str = "eval and train", way: str = "fx", **outcomes: int) -> Row:
    passes = {"widen": PassCounts(9, outcomes)}
    return Row(model, {}, {}, nodes=5, way=way, modes=modes, growable=growable, passes=passes)


def test_rows_are_added_up_by_source() -> None:
    rows = [
        row("timm:a", 0.5, preserved=2), row("timm:b", 1.0, preserved=1, wrong=1), row("timm:c", 0.9, "eval"),
        Row("timm:d", {}, {}, failure="CaptureError: no way"), row("torchvision:e", 0.75, way="dynamo", preserved=3),
        Row("lost:f", {}, {}, stopped="died"),
    ]  # fmt: skip
    rows[0].onnx, rows[1].onnx = {"parity": 3}, {"parity": 1, "refused": 3}
    timm, torchvision, lost = by_source(rows)
    assert timm == ("timm", "3 of 4 (3 by fx)", "2", "90.0%", "50.0% (`a`)", "3 of 4", "1", "4 of 7")
    assert torchvision == ("torchvision", "1 of 1 (1 by dynamo)", "1", "75.0%", "75.0% (`e`)", "3 of 3", "0", "")
    assert lost == ("lost", "0 of 1", "0", "", "", "0 of 0", "0", "")
    assert {len(line) for line in (timm, torchvision, lost)} == {len(HEAD)}
    assert by_source([]) == []
