"""``winnow attribution validate``: what attribution is worth at a checkpoint of the store."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_validate(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the action to ``winnow attribution``."""
    validate = actions.add_parser(
        "validate",
        help="what attribution is worth at a checkpoint of the store",
        description="Put the configured estimator to tests that it could fail, at a checkpoint of the published store "
        "and on a sample of what it was trained on: agreement with the one-step oracle, stability over checkpoints, "
        "tail-patch, planted corruption, memorisation, fact tracing (with --facts) and, if asked for, brittleness. "
        "The last trains small models anew, with and without the documents named, not the checkpoint: it judges the "
        "estimator at a small model.",
    )
    validate.add_argument("--checkpoint", metavar="NAME", help="default: the current one")
    validate.add_argument(
        "--only",
        metavar="CHECK",
        action="append",
        default=[],
        help="one check (repeatable); brittleness trains small models of its own",
    )
    validate.add_argument(
        "--documents", type=_documents, metavar="N", default=256, help="size of the sample (default: 256)"
    )
    validate.add_argument("--facts", metavar="FILE", help="records with subject, object and text (a sentence)")
    validate.add_argument("--format", choices=("table", "csv", "json"), default="table")


def _documents(text: str) -> int:
    if not text.isdecimal() or int(text) < 32:
        raise argparse.ArgumentTypeError(f"'{text}' is no sample; give a whole number of at least 32")
    return int(text)


def validate(options: argparse.Namespace) -> int:
    """Print the leaderboard of the checks that ran, and why the others did not."""
    from winnow.cli.show import rounded, show_records, tell
    from winnow.config import load_config
    from winnow.home import Home
    from winnow.stages.attribution_validation import read_facts, validate_attribution
    from winnow.store.published import open_published

    home = Home.from_environment(options.home)
    config = load_config(home.config)
    facts = read_facts(Path(options.facts).expanduser()) if options.facts else []
    with open_published(home, config.store) as connection:
        found = validate_attribution(
            connection, home, config, checkpoint=options.checkpoint, checks=options.only,
            documents=options.documents, facts=facts, say=tell,
        )  # fmt: skip
    rows = found.records()
    if options.format == "table":
        rows = [rounded(one) for one in rows]
    if rows or options.format != "table":
        show_records(rows, options.format)
    for name, reason in found.skipped.items():
        tell(f"{name} was skipped: {reason}")
    return 0
