"""Draw docs/architecture.svg: what flows from a model to a verified, exported grown model.

python tools/draw_architecture.py docs/architecture.svg
"""

from __future__ import annotations

import argparse

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

INK, PAPER, ACCENT, SOFT = "#1f2933", "#ffffff", "#0072b2", "#e8f1f8"


def box(ax: Axes, x: float, y: float, title: str, text: str, core: bool = False, width: float = 2.1) -> None:
    """A part of the program, centred at x, y."""
    patch = FancyBboxPatch(
        (x - width / 2, y - 0.42), width, 0.84, boxstyle="round,pad=0.02,rounding_size=0.08",
        facecolor=SOFT if core else PAPER, edgecolor=ACCENT if core else INK, linewidth=1.4 if core else 0.9,
    )  # fmt: skip
    ax.add_patch(patch)
    ax.text(x, y + 0.17, title, ha="center", va="center", fontsize=10, color=INK, family="monospace", weight="bold")
    ax.text(x, y - 0.16, text, ha="center", va="center", fontsize=8, color=INK)


def arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], label: str = "", shift: float = 0.12) -> None:
    """What flows from one part to the next."""
    ax.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": INK, "linewidth": 1.0})
    if label:
        middle = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2 + shift)
        ax.text(*middle, label, ha="center", va="bottom", fontsize=7.5, color=ACCENT)


def main() -> None:
    """Draw to the file that is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path")
    path = parser.parse_args().path
    plt.rcParams["svg.fonttype"] = "none"
    plt.rcParams["svg.hashsalt"] = "graphgrow"
    figure, ax = plt.subplots(figsize=(11.2, 4.9))
    ax.set_xlim(-0.1, 13.3)
    ax.set_ylim(-0.1, 5.5)
    ax.axis("off")
    box(ax, 1.2, 4.6, "your model", "nn.Module + inputs")
    box(ax, 4.6, 4.6, "capture", "fx, both modes", core=True)
    box(ax, 8.2, 4.6, "ops", "a rule for each operator", core=True)
    box(ax, 12.0, 4.6, "ir", "axes: spaces, products,\nconcatenations", core=True, width=2.3)
    arrow(ax, (2.3, 4.6), (3.5, 4.6))
    arrow(ax, (5.7, 4.6), (7.1, 4.6), "graph")
    arrow(ax, (9.3, 4.6), (10.8, 4.6), "facts")
    box(ax, 12.0, 2.75, "plan", "which fill each tensor takes", core=True, width=2.3)
    box(ax, 8.2, 2.75, "rewrite", "tensors, sizes, optimizer", core=True)
    box(ax, 4.6, 2.75, "shapes", "predicted = propagated", core=True)
    box(ax, 1.2, 2.75, "grown model", "nn.Module + ledger")
    box(ax, 12.0, 0.9, "passes, blocks", "widen, deepen, ...: one a file", width=2.3)
    arrow(ax, (12.0, 4.15), (12.0, 3.2))
    ax.text(11.9, 3.68, "channel groups", ha="right", va="center", fontsize=7.5, color=ACCENT)
    arrow(ax, (10.8, 2.75), (9.3, 2.75), "exact, or declined")
    arrow(ax, (7.1, 2.75), (5.7, 2.75), "editor's copy")
    arrow(ax, (3.5, 2.75), (2.3, 2.75))
    arrow(ax, (12.0, 1.35), (12.0, 2.3))
    ax.text(11.9, 1.83, "a site and options", ha="right", va="center", fontsize=7.5, color=ACCENT)
    box(ax, 1.2, 0.9, "verification", "float64, node by node")
    box(ax, 4.6, 0.9, "export, bench", "ONNX parity, latency")
    arrow(ax, (1.2, 2.3), (1.2, 1.35))
    arrow(ax, (2.3, 0.9), (3.5, 0.9), "preserved")
    figure.tight_layout(pad=0.2)
    figure.savefig(path, metadata={"Date": None} if path.endswith(".svg") else None, dpi=120)


if __name__ == "__main__":
    main()
