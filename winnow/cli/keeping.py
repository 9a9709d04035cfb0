"""Commands that keep a store in order: check it, clean it, back it up, restore it, withdraw documents from it."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from winnow.cli.show import plain, show_records
from winnow.errors import UserError
from winnow.home import Home

if TYPE_CHECKING:
    from winnow.stages.demands import Demand
    from winnow.store import Store

COMMANDS = ("doctor", "gc", "backup", "restore", "takedown")


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands of this module to the command line."""
    form = {"choices": ("table", "json"), "default": "table"}
    doctor = commands.add_parser("doctor", help="check the store: keys, parts, counts, manifests, digests")
    doctor.add_argument("--deep", action="store_true", help="read every byte: hash all parts, and all texts")
    doctor.add_argument("--format", **form)  # type: ignore[arg-type]

    gc = commands.add_parser("gc", help="remove what neither the store nor a manifest needs")
    gc.add_argument("--dry-run", action="store_true", help="say what would go, remove nothing")
    gc.add_argument(
        "--keep-days", metavar="N", type=_days, help="leave alone what is younger (default: store.keep_days)"
    )
    gc.add_argument("--format", **form)  # type: ignore[arg-type]

    backup = commands.add_parser("backup", help="back the store up; a second backup copies only what is new")
    backup.add_argument("folder", metavar="DIR", help="where backups lie, all of them together")
    backup.add_argument("--verify", action="store_true", help="hash what is there already; copy anew what is damaged")

    restore = commands.add_parser("restore", help="make a home from a backup, in any backend")
    restore.add_argument("folder", metavar="DIR", help="where backups lie")
    restore.add_argument("--backup", metavar="NAME", help="which one (default: the newest)")
    restore.add_argument("--home", metavar="NEW", default=argparse.SUPPRESS, help="the new home: empty or absent")
    restore.add_argument("--backend", choices=("file", "lake"), help="the backend of the new home")

    takedown = commands.add_parser("takedown", help="withdraw documents, list and lift demands")
    actions = takedown.add_subparsers(dest="action", required=True, metavar="ACTION")
    for action, text in (
        ("add", "withdraw what a demand names, now and when it comes back"),
        ("remove", "lift a demand"),
    ):
        one = actions.add_parser(action, help=text)
        for kind in ("doc-id", "original-id", "url", "sha256"):
            one.add_argument(f"--{kind}", metavar="VALUE", action="append", default=[], help="repeatable")
        one.add_argument("--list", metavar="FILE", help="a CSV file with the columns kind, value and reason")
        if action == "add":
            one.add_argument("--reason", default="", help="why; it stands with every withdrawn record")
            one.add_argument("--dry-run", action="store_true", help="say what would go, withdraw nothing")
    actions.add_parser("list", help="all demands, and the manifests that contain what they reach").add_argument(
        "--format",
        **form,  # type: ignore[arg-type]
    )


def _days(text: str) -> float:
    try:
        days = float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"'{text}' is no number of days") from error
    if not days >= 0:
        raise argparse.ArgumentTypeError(f"{text} days: give 0 or more")
    return days


def doctor(options: argparse.Namespace) -> int:
    """Check the store and print what is wrong; 1 when something is."""
    return _examined(_store(options), options.deep, options.format)


def _examined(store: Store, deep: bool = False, form: str = "table") -> int:
    from winnow.stages.examining import examine

    found = examine(store, deep=deep)
    state = {True: "ok", False: "PROBLEM"}
    if form == "json":
        print(json.dumps([vars(one) | {"ok": one.ok} for one in found], indent=2, ensure_ascii=False))
        return 0 if all(one.ok for one in found) else 1
    rows = [
        {
            "check": one.name,
            "state": "note" if one.found and one.ok else state[one.ok],
            "found": one.found,
            "what": one.what,
        }
        for one in found
    ]
    show_records(rows, "table")
    for one in found:
        if one.found:
            print(f"\n{one.name}: {one.found:,} found")
            print("\n".join(f"  {example}" for example in one.examples))
            more = one.found - len(one.examples)
            print(f"  and {more:,} more\n  mend: {one.mend}" if more else f"  mend: {one.mend}")
    return 0 if all(one.ok for one in found) else 1


def gc(options: argparse.Namespace) -> int:
    """Collect garbage and print what and how many bytes."""
    from winnow.stages.withdrawn_texts import purge_withdrawn
    from winnow.store.garbage import collect_garbage

    store = _store(options)
    removed = collect_garbage(store, options.keep_days, options.dry_run)
    if not options.dry_run and purge_withdrawn(store):  # of a delivery that was killed after its transaction
        store.publish()  # what it replaced goes in a later collection
    if options.format == "json":
        print(json.dumps([vars(one) for one in removed], indent=2, ensure_ascii=False))
        return 0
    for one in removed:
        print(f"{one.what:<24}{one.bytes:>16,}  {one.place}")
    counted = Counter(one.what for one in removed)
    each = ", ".join(f"{count} {what}" for what, count in sorted(counted.items())) or "nothing"
    verb = "would remove" if options.dry_run else "removed"
    print(f"{verb} {each}: {sum(one.bytes for one in removed):,} bytes")
    return 0


def backup(options: argparse.Namespace) -> int:
    """Back the store up."""
    from winnow.store.backup import make_backup

    folder = Path(options.folder).expanduser().resolve()
    made = make_backup(_store(options), folder, options.verify)
    print(f"{folder}/backups/{made.name}: {made.files:,} files, {made.bytes:,} bytes")
    checked = " and is whole" if options.verify else ""
    print(f"copied {made.copied_files:,} files, {made.copied_bytes:,} bytes; the rest was there already{checked}")
    if made.replaced_files:
        print(f"{made.replaced_files:,} of the copied files replaced damaged ones, which older backups may share")
    return 0


def restore(options: argparse.Namespace) -> int:
    """Restore a backup into a new home and check it."""
    from winnow.store.restore import restore_backup

    home = Home.from_environment(options.home)
    done = restore_backup(Path(options.folder).expanduser().resolve(), home, options.backup, options.backend)
    size = f"{done.files:,} files, {done.bytes:,} bytes, all verified"
    print(f"restored {done.name} into {home.root} ({done.backend}): {size}\n")
    return _examined(done.store)


# -- takedowns --------------------------------------------------------------------------------------------------------


def takedown(options: argparse.Namespace) -> int:
    """Add, list or lift demands."""
    return {"add": _add, "list": _list, "remove": _remove}[options.action](options)


def _add(options: argparse.Namespace) -> int:
    from winnow.stages.withdrawing import add_takedowns, preview_takedowns

    store, demands = _store(options), _demands(options, options.reason)
    if options.dry_run:
        taken = preview_takedowns(store, demands)
        done, go = "would add", "would go"
    else:
        taken = add_takedowns(store, demands)
        store.publish()
        done, go = "added", "went"
    print(f"{done} {taken.added} demands: {taken.documents:,} documents and {taken.occurrences:,} occurrences {go}")
    if taken.manifests:
        print(f"manifests that contain them: {_named(taken.manifests)}")
        print("these manifests and the parts of their snapshots stay as they are, text included; no later one has them")
    return 0


def _list(options: argparse.Namespace) -> int:
    from winnow.stages.withdrawing import list_takedowns

    found = list_takedowns(_store(options))
    if options.format == "json":
        print(json.dumps(plain(found), indent=2, ensure_ascii=False))
    elif found:
        show_records([row | {"manifests": _named(row["manifests"])} for row in found], "table")
    else:
        print("no takedowns")
    return 0


def _remove(options: argparse.Namespace) -> int:
    from winnow.stages.withdrawing import remove_takedowns

    store, demands = _store(options), _demands(options)
    lifted = remove_takedowns(store, demands)
    store.publish()
    print(f"lifted {len(demands)} demands: {lifted.documents:,} documents are held back no more")
    if lifted.shards:
        print(f"they come back when their files are read again, at the next delivery: {', '.join(lifted.shards[:20])}")
        if len(lifted.shards) > 20:
            print(f"and {len(lifted.shards) - 20} more")
    return 0


def _demands(options: argparse.Namespace, reason: str = "") -> list[Demand]:
    from winnow.stages.demands import KINDS, make_demand, read_demands

    found = [make_demand(kind, value, reason) for kind in KINDS for value in getattr(options, kind)]
    if options.list:
        listed = read_demands(Path(options.list).expanduser())
        found += [one if one.reason else make_demand(one.kind, one.value, reason) for one in listed]
    if not found:
        raise UserError("name what is withdrawn: --doc-id, --original-id, --url or --sha256 VALUE, or --list FILE.csv")
    return found


def _named(manifests: Mapping[str, int]) -> str:
    return ", ".join(f"{version} ({rows:,} rows)" for version, rows in manifests.items())


def _store(options: argparse.Namespace) -> Store:
    from winnow.store import open_store

    store = open_store(Home.from_environment(options.home))
    if not store.backend.exists():
        raise UserError(f"there is no store in {store.home.root}: run `winnow run` first, or set WINNOW_HOME")
    return store
