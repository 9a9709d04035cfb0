"""``winnow influences``: the training documents that raise or lower a model's loss on a text."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from winnow.cli.similar import count, read_argument
from winnow.errors import UserError

if TYPE_CHECKING:
    from winnow.stages.influences import Influences, InfluentialDocument

COMMANDS = ("influences",)


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    influences = commands.add_parser(
        "influences",
        help="the training documents that raise or lower the model's loss on a text",
        description="Name the documents that lowered a checkpoint's loss on a text most (--lowest: raised it most) "
        "when it was trained on them, with BM25 beside. Positive is helpful; the unit is the estimator's own.",
    )
    asked = influences.add_mutually_exclusive_group(required=True)
    asked.add_argument("--query", metavar="TEXT", help="the text itself")
    asked.add_argument("file", metavar="FILE", nargs="?", help="a UTF-8 file that holds it, or - for standard input")
    influences.add_argument("--top", type=count, metavar="N", default=20, help="documents to name (default: 20)")
    influences.add_argument(
        "--lowest",
        action="store_true",
        help="those that raise the loss most, the worst first; of many documents a BM25 shortlist holds only "
        "those that are lexically near to the text, so ask with --by-gradients",
    )
    influences.add_argument(
        "--estimator",
        metavar="NAME",
        help="an attribution method, see docs/attribution.md (default: influence.estimator)",
    )
    influences.add_argument(
        "--scope", metavar="SCOPE", help="the parameters whose gradients count (default: influence.scope)"
    )
    influences.add_argument("--checkpoint", metavar="NAME", help="the model to ask (default: the current checkpoint)")
    influences.add_argument(
        "--shortlist", type=count, metavar="N", default=1_000,
        help="measure this many documents at most, those that BM25 ranks first (default: 1000)",
    )  # fmt: skip
    influences.add_argument(
        "--by-gradients",
        action="store_true",
        help="make the shortlist by projected gradients, which are stored at the first question, instead of BM25",
    )
    influences.add_argument("--format", choices=("table", "json"), default="table")
    influences.add_argument(
        "--json", dest="format", action="store_const", const="json", help="the same as --format json"
    )


def influences(options: argparse.Namespace) -> int:
    """Print the documents with the highest or lowest influence on a text."""
    from winnow.config import load_config
    from winnow.home import Home
    from winnow.stages.influences import Question, find_influences
    from winnow.store.published import open_published

    home = Home.from_environment(options.home)
    config = load_config(home.config)
    question = Question(
        text=_text(options, config.corpus.max_record_bytes),
        estimator=options.estimator,
        scope=options.scope,
        checkpoint=options.checkpoint,
        top=options.top,
        lowest=options.lowest,
        shortlist=options.shortlist,
        by_gradients=options.by_gradients,
    )
    with open_published(home, config.store) as connection:
        found = find_influences(connection, home, config, question, _say)
    _print(found, question.lowest, options.format)
    return 0


def _say(text: str) -> None:
    """Tell a person who waits; a program reads the rows alone."""
    if sys.stderr.isatty():
        print(text, file=sys.stderr)


def _text(options: argparse.Namespace, most_bytes: int) -> str:
    if options.query is None:
        if options.file != "-" and not Path(options.file).expanduser().exists():
            raise UserError(f"{options.file}: no such file; a text itself goes after --query")
        return read_argument(options.file, most_bytes)
    try:
        options.query.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"--query: no UTF-8 text (character {error.start}); put it into a file as UTF-8") from error
    return options.query


def _print(found: Influences, lowest: bool, form: str) -> None:
    from winnow.cli.show import plain, show_records
    from winnow.stages.influences import answer

    if form == "json":
        told = answer(found)
        told["documents"] = [plain(row) for row in told["documents"]]
        print(json.dumps(told, indent=2, ensure_ascii=False))
        return
    if found.documents:
        show_records([_row(rank, one) for rank, one in enumerate(found.documents, 1)], "table")
        print()
    print("\n".join(_facts(found, lowest)))


def _row(rank: int, one: InfluentialDocument) -> dict[str, Any]:
    return {
        "rank": rank,
        "influence": float(f"{one.influence:.4g}"),
        "bm25_rank": one.bm25_rank,
        "bm25": round(one.bm25, 2),
        "doc_id": one.doc_id,
        "source": one.source,
        "tokens": one.tokens,
        "times": one.times,
        "document": one.excerpt,
    }


def _facts(found: Influences, lowest: bool) -> list[str]:
    """Say what was asked of whom, in sentences."""
    estimate, cut = found.estimate, ""
    if found.query_used < found.query_tokens:
        cut = f", of which the first {found.query_used:,}, the model's context, are explained"
    projected = (
        f"projected to {estimate.projection} x {estimate.projection}" if estimate.projection else "not projected"
    )
    told = [
        f"text: {found.query_tokens:,} tokens{cut}; loss {found.query_loss:.4g} nats a token at {found.checkpoint}",
        f"measured: {estimate.estimator}, scope {estimate.scope}, damping {estimate.damping:g}, {projected}",
    ]
    which = f"all {found.among.summary}"
    if found.measured < len(found.among):
        by = f"a shortlist by {found.shortlisted_by} (--shortlist)"
        which = f"{found.measured:,} of {found.among.summary}; {by}"
    told.append(f"among: {which}")
    told += [f"excluded: {count:,} of them, {reason}" for reason, count in sorted(found.excluded.items())]
    sign = "negative = training on it raised the loss" if lowest else "positive = training on it lowered the loss"
    return [*told, f"influence: {sign}; the unit is the estimator's own, so compare within this list"]
