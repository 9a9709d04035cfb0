"""``winnow attribution sources``: what every source of a checkpoint's training does for the reference."""

from __future__ import annotations

import argparse

from winnow.cli.similar import count


def add_sources(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the action to ``winnow attribution``."""
    sources = actions.add_parser(
        "sources",
        help="what every source of a checkpoint's training does for the reference",
        description="Unlearn a sample of every source by gradient ascent from a checkpoint that kept its optimizer, "
        "and tell by how much the loss on the reference rises (UnTrac). Positive = the source helps. Each source takes "
        "as many steps of 8 documents; the checkpoint itself is not changed.",
    )
    sources.add_argument("--checkpoint", metavar="NAME", help="default: the current one")
    sources.add_argument("--steps", type=count, metavar="N", default=8, help="of ascent a source (default: 8)")
    sources.add_argument("--format", choices=("table", "csv", "json"), default="table")


def sources(options: argparse.Namespace) -> int:
    """Print a row a source, the most helpful first."""
    from winnow.cli.show import rounded, show_records, tell
    from winnow.config import load_config
    from winnow.home import Home
    from winnow.stages.source_influence import influence_of_sources
    from winnow.store.published import open_published

    home = Home.from_environment(options.home)
    config = load_config(home.config)
    with open_published(home, config.store) as connection:
        rows = influence_of_sources(
            connection, home, config, checkpoint=options.checkpoint, steps=options.steps, say=tell
        )
    if options.format == "table":
        shown = ("source", "influence", "se", "documents", "unlearnt", "items")
        rows = [rounded({name: row[name] for name in shown}) for row in rows]
    show_records(rows, options.format)
    return 0
