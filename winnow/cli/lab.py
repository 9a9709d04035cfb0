"""``winnow lab``: does a selection teach more than random documents do, on the store's own candidates."""

from __future__ import annotations

import argparse
import os
import sys

COMMANDS = ("lab",)


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    from winnow.cli import _tokens

    lab = commands.add_parser(
        "lab",
        help="train one model a preset, and compare them with random documents",
        description="Train one small model for each preset, reference and seed from one checkpoint, on as many tokens, "
        "and write what they say of the presets to lab_runs, lab_curves and lab_results. Runs are kept as they are "
        "done: stop it whenever, the same command goes on.",
    )
    lab.add_argument("--presets", metavar="NAMES", help="comma-separated (default: the core ones)")
    lab.add_argument(
        "--reference", metavar="FILE", action="append", default=[], help="beside the configured one (repeatable)"
    )
    lab.add_argument("--seeds", type=int, default=3, metavar="N", help="trainings of each (default: 3)")
    lab.add_argument("--tokens", type=_tokens, default=1_000_000, metavar="N", help="of a training (default: 1M)")
    lab.add_argument("--model-size", default="proxy", metavar="NAMES", help="proxy, half or both (default: proxy)")
    lab.add_argument("--format", choices=("table", "csv", "json"), default="table")


def lab(options: argparse.Namespace) -> int:
    """Run the lab and print its results."""
    from winnow.cli.show import show_records
    from winnow.config import load_config
    from winnow.home import Home
    from winnow.lab.speed import FORMULA
    from winnow.stages.checkpoints import current_checkpoint
    from winnow.stages.lab import (
        CORE,
        LabRequest,
        lab_digest,
        open_store_lab,
        run_lab,
        write_results,
        write_runs,
    )
    from winnow.store import open_store

    presets = tuple(options.presets.split(",")) if options.presets else CORE
    models = tuple(options.model_size.split(","))
    request = LabRequest(presets, tuple(options.reference), options.seeds, options.tokens, models).checked()
    home = Home.from_environment(options.home)
    config = load_config(home.config)
    store = open_store(home, config.store)
    with store.read() as connection:
        checkpoint = current_checkpoint(connection, config)
    opened = open_store_lab(store, config, checkpoint, request)
    runs, failed = run_lab(opened, request, os.cpu_count() or 1, _say)
    with store.write() as connection:
        write_runs(connection, lab_digest(opened), runs)
        rows = write_results(connection, lab_digest(opened), runs, failed)
    show_records([{key: _rounded(value) for key, value in one.items() if key != "lab"} for one in rows], options.format)
    print(f"\nscoring at another size: {FORMULA}", file=sys.stderr)
    return 1 if failed else 0


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _rounded(value: object) -> object:
    return float(f"{value:.4g}") if isinstance(value, float) else value
