"""``winnow duplicates plan | sweep``: thresholds of near duplicates, looked at before and after comparing."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from winnow.errors import UserError

if TYPE_CHECKING:
    from winnow.config import Config
    from winnow.dedup.estimates import SimilaritySample
    from winnow.home import Home

COMMANDS = ("duplicates",)


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    top = commands.add_parser("duplicates", help="what a threshold of near duplicates finds, costs and removes")
    actions = top.add_subparsers(dest="action", required=True, metavar="ACTION")
    plan = actions.add_parser("plan", help="before comparing: bands, chances to find a pair, disk and memory")
    plan.add_argument("--documents", type=_count, metavar="N", help="for so many documents (default: those stored)")
    plan.add_argument("--mean-bytes", type=_count, metavar="B", help="of so many bytes (default: as those stored)")
    sweep = actions.add_parser("sweep", help="after comparing: what higher thresholds would remove")
    for action in (plan, sweep):
        action.add_argument(
            "--threshold", type=_threshold, metavar="T", action="append", help="a threshold to look at (repeatable)"
        )
        action.add_argument("--format", choices=("table", "json"), default="table")


def _threshold(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no threshold; give a number between 0 and 1")
    return value


def _count(text: str) -> int:
    digits = text.replace("_", "").replace(",", "")
    if not digits.isdecimal() or int(digits) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no count; give a whole number of at least 1")
    return int(digits)


def duplicates(options: argparse.Namespace) -> int:
    """Print what thresholds would find, or have found."""
    from winnow.config import load_config
    from winnow.home import Home

    home = Home.from_environment(options.home)
    config = load_config(home.config)
    return {"plan": _plan, "sweep": _sweep}[options.action](home, config, options)


MEAN_BYTES = 2_000
"""Of a document of the web, where neither the store nor the user says."""


def _plan(home: Home, config: Config, options: argparse.Namespace) -> int:
    from winnow.cli.show import show_records
    from winnow.stages.duplicate_plan import THRESHOLDS, plan_rows
    from winnow.stages.progress import size

    documents, mean, value_bytes, sample = _corpus(home, config, options)
    rows = plan_rows(config.duplicates, options.threshold or THRESHOLDS, documents, mean, value_bytes, sample)
    if options.format == "json":
        show_records(rows, "json")
        return 0
    for row in rows:
        row["configured"] = "*" if row["configured"] else ""
        row |= {column: size(row[column]) for column in ("disk", "memory") if row[column] is not None}
    show_records(rows, "table")
    basis = f"a sample of {sample.pairs:,} pairs" if sample else "a general density of similarities, no sample"
    print(
        f"\n{documents:,} documents of {size(round(mean))}; false candidates by {basis}; "
        f"memory limit {config.store.memory_limit}; * is configured"
    )
    return 0


def _corpus(home: Home, config: Config, options: argparse.Namespace) -> tuple[int, float, int, SimilaritySample | None]:
    """Return documents, their mean bytes, bytes of a position of a signature, and a sample of similarities."""
    from winnow.dedup.sketch import make_plan
    from winnow.stages.duplicate_plan import sample_of
    from winnow.store.published import open_published

    plan = make_plan(config.duplicates)
    width = plan.sketching.dtype.itemsize
    if options.documents and not home.published.exists():
        return options.documents, options.mean_bytes or MEAN_BYTES, width, None
    with open_published(home, config.store) as connection:
        row = connection.execute("SELECT count(*), coalesce(avg(bytes), 0) FROM documents").fetchone() or (0, 0)
        sample = sample_of(connection, plan)
    documents = options.documents or int(row[0])
    if not documents:
        raise UserError("the store has no documents yet: name a number of them, --documents 1000000")
    return documents, options.mean_bytes or float(row[1]) or MEAN_BYTES, width, sample


def _sweep(home: Home, config: Config, options: argparse.Namespace) -> int:
    from winnow.cli.show import show_records
    from winnow.dedup.sketch import make_plan
    from winnow.stages.duplicate_plan import THRESHOLDS, threshold_sweep
    from winnow.store.published import open_published

    least = config.duplicates.threshold
    if options.threshold and min(options.threshold) < least:
        raise UserError(
            f"pairs below {least:g} were never looked for: lower duplicates.threshold and run again, or look higher"
        )
    with open_published(home, config.store) as connection:
        rows = threshold_sweep(connection, config, make_plan(config.duplicates).scheme, options.threshold or THRESHOLDS)
    show_records(rows, options.format)
    return 0
