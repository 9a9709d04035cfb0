"""``winnow attribution bench | validate | sources``: what estimates of influence are worth, and what sources do."""

from __future__ import annotations

import argparse

from winnow.cli.attribution_sources import add_sources, sources
from winnow.cli.attribution_validate import add_validate, validate

COMMANDS = ("attribution",)
COLUMNS = (
    "estimator",
    "scope",
    "damping",
    "projection",
    "runs",
    "checkpoints",
    "lds",
    "se",
    "share",
    "tuning_lds",
    "seconds",
)


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    top = commands.add_parser("attribution", help="how far estimates of influence can be trusted, and what sources do")
    actions = top.add_subparsers(dest="action", required=True, metavar="ACTION")
    bench = actions.add_parser(
        "bench",
        help="score estimators against models trained on subsets of the documents",
        description="Score estimators of influence against models trained on subsets of the documents. The documents "
        "of `tiny` come with Python. `small` reads wiki_en/docs.jsonl.zst in the folder that WINNOW_TEST_DATA names, "
        "`mixed` code/docs.jsonl.zst and books/docs.jsonl.zst too: a JSON object a line, with a `text`.",
    )
    bench.add_argument(
        "--bench",
        default="tiny",
        metavar="NAME",
        help="tiny (seconds), small (minutes) or mixed (half an hour); the bank is trained once (default: tiny)",
    )
    bench.add_argument("--estimators", metavar="NAMES", help="some of them, comma-separated (default: all)")
    bench.add_argument("--runs", type=int, default=1, metavar="N", help="average scores over N trainings (default: 1)")
    bench.add_argument("--average", action="store_true", help="average scores over every checkpoint of a training")
    bench.add_argument("--projection", type=int, default=0, metavar="P", help="project gradients to P x P (0: not)")
    bench.add_argument("--seed", type=int, default=0, help="of projections and sampled labels")
    bench.add_argument("--no-tune", action="store_true", help="default scope and damping instead of the best ones")
    bench.add_argument("--format", choices=("table", "csv", "json"), default="table")
    add_validate(actions)
    add_sources(actions)


def attribution(options: argparse.Namespace) -> int:
    """Run the action that was asked for."""
    return {"bench": _bench, "validate": validate, "sources": sources}[options.action](options)


def _bench(options: argparse.Namespace) -> int:
    """Print the leaderboard of a bench."""
    from winnow.attribution.leaderboard import leaderboard
    from winnow.attribution.run import Settings
    from winnow.cli.show import rounded, show_records, tell
    from winnow.config import load_config
    from winnow.home import Home
    from winnow.stages.attribution_bench import Request, open_bench

    home = Home.from_environment(options.home)
    names = tuple(options.estimators.split(",")) if options.estimators else ()
    settings = Settings(projection=options.projection, seed=options.seed)

    request, prepared = open_bench(
        home,
        Request(options.bench, names, options.runs, options.average, settings),
        load_config(home.config).encoder,
        lambda done, total: tell(f"{done} of {total} subset models trained"),
    )
    rows = leaderboard(
        prepared,
        request.estimators,
        request.settings,
        tune=not options.no_tune,
        average=request.average,
        progress=lambda row: tell(f"{row.estimator}: {row.reason or f'LDS {row.lds:.3f}'}"),
    )
    records = [row.record() for row in rows]
    if options.format != "table":
        show_records(records, options.format)
        return 0
    measured = [rounded({name: row[name] for name in COLUMNS}, 3) for row in records if row["lds"] is not None]
    if measured:
        show_records(measured, "table")
    bank = prepared.bank
    print(
        f"\nbench {options.bench}: {bank.masks.shape[1]:,} documents, {len(bank.masks)} subsets x "
        f"{bank.losses.shape[1]} seeds, {len(prepared.judging)} judging queries, "
        f"ceiling {prepared.ceiling:.3f}; share = LDS / ceiling"
    )
    for row in rows:
        if row.reason:
            print(f"{row.estimator}: not measured, {row.reason}")
    return 0
