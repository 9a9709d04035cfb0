"""What the lab prints and draws: the table of presets, projections, comparisons, curves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from winnow.lab.compare import Choices, Difference, Outlier
from winnow.lab.kept import RunResult
from winnow.lab.ranking import RankAgreement
from winnow.lab.speed import FORMULA, Projection, Speed, grouped, mean_curve


def table(rows: Sequence[Sequence[str]], header: Sequence[str]) -> str:
    """Return a Markdown table."""
    lines = ["| " + " | ".join(row) + " |" for row in (header, ["---"] * len(header), *rows)]
    return "\n".join(lines)


def speed_table(rows: Sequence[Speed]) -> str:
    """Return the presets' table, a block a target and model as they come."""
    header = (
        "target", "model", "preset", "seeds", "loss", "se", "difference from random [95%]", "out of domain",
        "tokens to random's loss [95%]", "operations", "with scoring", "scoring s",
    )  # fmt: skip
    return table(
        [
            (
                row.target, row.model, row.preset, str(row.seeds), f"{row.loss:.4f}", _number(row.error, 4),
                f"{row.difference:+.4f} {_interval(row.difference_low, row.difference_high, 4)}",
                _number(row.out, 4, sign=True), f"{_share(row.tokens)} {_interval(row.tokens_low, row.tokens_high, 2)}",
                _share(row.flops), _share(row.scored_flops), f"{row.seconds:.1f}",
            )
            for row in rows
        ],
        header,
    )  # fmt: skip


def projection_table(rows: Sequence[Projection]) -> str:
    """Return what scoring would cost at other sizes, and the formula; a projection."""
    body = table(
        [(row.preset, f"{row.parameters:.3g}", f"{row.tokens:.3g}", _share(row.model_share), _share(row.encoder_share),
          _share(row.share)) for row in rows],
        ("preset", "parameters", "tokens", "model passes", "encoder", "scoring / training"),
    )  # fmt: skip
    return f"Projection, not a measurement: {FORMULA}\n\n{body}"


def choices_table(found: Sequence[Choices]) -> str:
    """Return what pairs of presets have in common."""
    return table(
        [
            (
                one.first, one.second, _share(one.documents), _share(one.tokens), f"{one.cluster_distance:.2f}",
                "/".join(f"{length:.0f}" for length in one.lengths),
                ", ".join(f"{name} " + "/".join(f"{share:.2f}" for share in shares)
                          for name, shares in one.sources.items() if max(shares) >= 0.05),
                ", ".join(f"{name} " + "/".join(f"{share:.2f}" for share in shares)
                          for name, shares in one.planted.items()),
            )
            for one in found
        ],
        ("first", "second", "documents in common", "tokens in common", "cluster distance",
         "tokens a document: first/second/pool", "sources: first/second/pool", "planted: first/second/pool"),
    )  # fmt: skip


def differences_table(found: Sequence[Difference]) -> str:
    """Return how the models of two presets differ, a row a set of items."""
    return table(
        [(one.first, one.second, one.measured, f"{one.mean:+.4f} {_interval(one.low, one.high, 4)}", _share(one.items),
          str(one.seeds)) for one in found],
        ("first", "second", "items of", "loss difference [95%]", "items better", "seeds"),
    )  # fmt: skip


def outliers_table(found: Sequence[tuple[str, Outlier]]) -> str:
    """Return the groups that stand out among presets' choices; ``found`` pairs a preset with a group."""
    return table(
        [(preset, one.kind, one.name, _share(one.chosen), _share(one.pool),
          f"{one.enrichment:.1f}x", "yes" if one.collective else "") for preset, one in found],
        ("preset", "kind", "group", "of the chosen", "of the pool", "enrichment", "collective outlier"),
    )  # fmt: skip


def ranking_text(found: RankAgreement) -> str:
    """Return whether the presets' order holds, in sentences."""
    verdict = "holds" if found.holds else "is not shown to hold"
    lines = [
        f"{found.target}: the order {verdict} between {found.models[0]} and {found.models[1]}: Kendall "
        f"{found.kendall:.2f} {_interval(*found.kendall_interval, 2)}, Spearman {found.spearman:.2f} "
        f"{_interval(*found.spearman_interval, 2)}; the same preset is {'' if found.best else 'not '}first.",
        *(f"{model}: {', '.join(order)}" for model, order in zip(found.models, found.presets, strict=True)),
    ]
    return "\n".join(lines)


def curve_plot(runs: Sequence[RunResult], target: str, model: str) -> bytes:
    """Draw the mean judging loss of each preset over tokens, PNG."""
    from winnow.plots import curves

    lines = {}
    for (preset, own, size), group in grouped(runs).items():
        if own == target and size == model:
            grid, losses = mean_curve(group)
            lines[preset] = (grid.tolist(), losses.mean(axis=0).tolist())
    return curves(lines, "tokens", f"judging loss on {target} (nats a token)")


def _share(value: float) -> str:
    return "never" if np.isposinf(value) else f"{value:.2f}" if value >= 0.01 or value == 0 else f"{value:.1g}"


def _number(value: float, digits: int, sign: bool = False) -> str:
    return "-" if not np.isfinite(value) else f"{value:{'+' if sign else ''}.{digits}f}"


def _interval(low: float, high: float, digits: int) -> str:
    if np.isnan(low) or np.isnan(high):
        return ""
    return f"[{_end(low, digits)}, {_end(high, digits)}]"


def _end(value: float, digits: int) -> str:
    return "never" if np.isposinf(value) else f"{value:.{digits}f}"
