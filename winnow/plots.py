"""Small pictures for the UI: PNG bytes of tens of kilobytes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

COLOURS = ("#3b6fb6", "#c2452d", "#3d8f5a", "#7a5aa6", "#b8860b", "#2a9d9d", "#d17fb2", "#6b6b6b", "#8a4b2a", "#9bbf3f")


def histogram(values: Sequence[float] | np.ndarray, label: str, log: bool = False) -> bytes:
    """Draw how ``values`` are distributed; ``log`` for quantities that span orders of magnitude."""
    data = np.asarray(values, np.float64)
    data = data[np.isfinite(data)]
    figure, axes = _figure()
    if len(data):
        low, high = max(data.min(), 1) if log else data.min(), data.max()
        if log and high > low:
            axes.set_xscale("log")
            bins: Any = np.geomspace(low, high, 40)
        else:
            bins = 40
        axes.hist(data, bins=bins, color="#3b6fb6")
    axes.set_xlabel(label)
    axes.set_ylabel("documents" if "document" in label else "count")
    return _png(figure)


def curves(lines: Mapping[str, tuple[Sequence[float], Sequence[float]]], x: str, y: str) -> bytes:
    """Draw one line a name from its (x, y) points."""
    figure, axes = _figure(height=3.0 if len(lines) <= 5 else 4.5)
    for place, (name, (xs, ys)) in enumerate(lines.items()):
        style = "-" if place < len(COLOURS) else "--"
        axes.plot(xs, ys, style, marker="o", markersize=3, label=name, color=COLOURS[place % len(COLOURS)])
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.legend(frameon=False, fontsize="medium" if len(lines) <= 5 else "x-small", ncols=1 + (len(lines) > 8))
    return _png(figure)


def s_curve(bands: int, rows: int, threshold: float) -> bytes:
    """Draw the chance that a pair becomes a candidate, over its similarity; the area below the threshold is false."""
    from winnow.dedup.bands import s_curve as chance

    similarity = np.linspace(0, 1, 401)
    found, recall = chance(bands, rows, similarity), float(chance(bands, rows, threshold))
    figure, axes = _figure()
    axes.fill_between(
        similarity,
        found,
        where=similarity <= threshold,
        color="#c2452d",
        alpha=0.25,
        linewidth=0,
        label="false candidates",
    )
    axes.plot(similarity, found, color="#3b6fb6", label=f"{bands} bands of {rows} rows")
    axes.axvline(threshold, color="#666666", linewidth=0.8, linestyle="--")
    axes.plot([threshold], [recall], "o", markersize=4, color="#3b6fb6")
    axes.annotate(
        f"{recall:.1%} at {threshold:g}", (threshold, recall), (-6, -12), textcoords="offset points", ha="right"
    )
    axes.set_xlabel("Jaccard similarity of a pair")
    axes.set_ylabel("chance to be a candidate")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.legend(frameon=False, loc="upper left")
    return _png(figure)


def bars(labels: Sequence[str], values: Sequence[float], label: str) -> bytes:
    """Draw horizontal bars, first on top."""
    figure, axes = _figure(height=max(2.0, 0.22 * len(labels) + 0.8))
    axes.barh(range(len(labels)), values, color=["#3b6fb6" if value >= 0 else "#c2452d" for value in values])
    axes.set_yticks(range(len(labels)), [text[:60] for text in labels], fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel(label)
    return _png(figure)


def scatter(x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray, x_label: str, y_label: str) -> bytes:
    """Draw points, such as predicted against measured influence."""
    figure, axes = _figure()
    axes.scatter(x, y, s=6, alpha=0.5, color="#3b6fb6", linewidths=0)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    return _png(figure)


def _figure(height: float = 3.0) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, height), dpi=80, layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
