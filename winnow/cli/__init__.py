"""The command line: ``winnow sql | similar | influences | explain | manifest | demo | run | ui``, and upkeep.

A :class:`~winnow.errors.UserError` is printed as one sentence and ends with exit code 2.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from winnow.cli import attribution, duplicates, influences, keeping, lab, similar

STAGES = (
    "corpus", "signals", "duplicates", "contamination", "embeddings", "model", "influence", "selection", "mixture",
)  # fmt: skip


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    top = argparse.ArgumentParser(prog="winnow", description="Curate pretraining text: from files to a manifest.")
    top.add_argument("--home", metavar="DIR", help="WINNOW_HOME (default: the environment's, else ./data)")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    sql = commands.add_parser("sql", help="query the published store")
    sql.add_argument("query", help="one SQL statement")
    sql.add_argument("--at", metavar="MANIFEST", help="the store as it was when this manifest was made (v0001)")
    _format(sql, ("table", "csv", "json"))

    manifest = commands.add_parser("manifest", help="list, show or verify manifests")
    actions = manifest.add_subparsers(dest="action", required=True, metavar="ACTION")
    _format(actions.add_parser("list", help="all versions"))
    for action, text in (("show", "one version: sources, funnel, inputs"), ("verify", "recompute digest and sums")):
        one = actions.add_parser(action, help=text)
        one.add_argument("version", help="for example v0001")
        _format(one)

    explain = commands.add_parser("explain", help="every judgement on one document")
    explain.add_argument("doc_id", help="the document's UUID, or the file's own id")
    explain.add_argument("--manifest", metavar="VERSION", help="the manifest to explain (default: the newest)")
    _format(explain)

    demo = commands.add_parser("demo", help="the whole job on real text that this machine already has")
    _project(demo)

    run = commands.add_parser("run", help="the whole job on your own files")
    run.add_argument("--corpus", metavar="GLOB", action="append", help="files; a source per folder (repeatable)")
    run.add_argument("--reference", metavar="FILE", help="the text that influence is measured on")
    run.add_argument("--budget", metavar="TOKENS", type=_tokens, help="tokens of the manifest")
    run.add_argument(
        "--evaluation", metavar="NAME=FILE", action="append", help="a set to keep out of the pool (repeatable)"
    )
    run.add_argument("--model", metavar="DIR", help="a Hugging Face checkpoint to start from, instead of a warm-up")
    run.add_argument("--until", choices=STAGES, metavar="STAGE", help=f"stop after one of: {', '.join(STAGES)}")
    run.add_argument("--checkpoint", metavar="NAME", help="a registered or new folder of WINNOW_HOME/checkpoints")
    run.add_argument("--no-train", action="store_true", help="stop at the manifest: train and validate nothing")
    _project(run)

    ui = commands.add_parser("ui", help="Dagster's UI and the sensors, on 127.0.0.1")
    ui.add_argument("--port", type=int, default=3000)
    _project(ui)

    config = commands.add_parser("config", help="print the configuration, defaults included")
    _format(config, ("toml", "json"))

    similar.add_commands(commands)
    influences.add_commands(commands)
    attribution.add_commands(commands)
    duplicates.add_commands(commands)
    lab.add_commands(commands)
    keeping.add_commands(commands)
    return top


def _format(command: argparse.ArgumentParser, choices: tuple[str, ...] = ("table", "json")) -> None:
    command.add_argument("--format", choices=choices, default=choices[0])


def _project(command: argparse.ArgumentParser) -> None:
    command.add_argument("--project", metavar="DIR", help="the checkout that holds definitions.py (default: found)")


def _tokens(text: str) -> int:
    """Parse a positive number of tokens; underscores, k, M and G are understood."""
    scale = {"k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9}.get(text[-1:], 1)
    digits = text[:-1] if scale > 1 else text
    try:
        value = round(float(digits.replace("_", "").replace(",", "")) * scale)
    except (ValueError, OverflowError) as error:
        raise argparse.ArgumentTypeError(f"'{text}' is no number of tokens; write 2000000 or 2M") from error
    if value < 1:
        raise argparse.ArgumentTypeError(f"a budget of {text} tokens selects nothing; give at least 1")
    return value


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 1 for a check that failed, 2 for a mistake that can be mended."""
    from winnow.errors import UserError

    options = parser().parse_args(arguments)
    try:
        if options.command in ("demo", "run", "ui"):
            from winnow.cli import runs

            return int(getattr(runs, options.command)(options))
        for module in (similar, influences, attribution, duplicates, lab, keeping):
            if options.command in module.COMMANDS:
                return int(getattr(module, options.command)(options))
        from winnow.cli import read

        return int(getattr(read, options.command)(options))
    except UserError as error:
        print(f"winnow: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("winnow: stopped; what was finished is kept, run the same command to go on", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 0
