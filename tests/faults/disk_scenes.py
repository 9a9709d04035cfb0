"""Things that are done while there is no room: ``python disk_scenes.py FOLDER HOW`` prints what became of them, JSON.

HOW is ``ballast`` (a file takes up the disk that FOLDER lies on, but for some bytes) or ``limit`` (no file of this
process may grow beyond so many bytes). Each scene is tried with less and more room, until it succeeds; then room is
made and the same is done again.
"""

from __future__ import annotations

import json
import logging
import os
import random
import resource
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
from tiny_world import deliver_all, tiny_config, write_lines
from wholeness import problems

from winnow.config import save_config
from winnow.errors import UserError
from winnow.home import Home
from winnow.identity import doc_ids
from winnow.mixture.manifest import build_manifest
from winnow.mixture.manifest_files import verify_manifest, write_manifest
from winnow.store.store import Store

ROOMS = (0, 5_000, 30_000, 100_000, 400_000, 1_000_000)
"""Bytes that are left."""


@contextmanager
def squeezed(how: str, folder: Path, room: int) -> Iterator[None]:
    if how == "limit":
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (max(room, 1), hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        return
    ballast = folder / "ballast"
    free = os.statvfs(folder)
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, free.f_bavail * free.f_frsize - room))
    try:
        yield
    finally:
        ballast.unlink()


def attempt(do: Callable[[], Any], home: Home) -> str:
    """Return "" when it worked, else the error; what is not a clear one is marked."""
    try:
        do()
    except UserError as error:
        place = any(str(path) in str(error) for path in (home.root, home.store, home.manifests))
        clear = place and "space" in str(error)
        return ("" if clear else "UNCLEAR ") + str(error)
    except Exception:
        return "UNCLEAR " + traceback.format_exc()[-2500:]
    return ""


def text(draw: random.Random) -> str:
    return " ".join(f"{draw.getrandbits(64):x}" for _ in range(60))


def scenes(folder: Path) -> Iterator[tuple[str, Home, Callable[[], Any], Callable[[], list[str]]]]:
    """Yield (name, home, what is done, what is wrong with what came of it)."""
    draw = random.Random(0)
    home = Home(folder / "home")
    save_config(tiny_config(), home.config)
    store = Store(home, tiny_config().store)
    for name in "ab":
        rows = [{"id": str(number), "text": text(draw)} for number in range(300)]
        write_lines(home.inbox / "news" / f"{name}.jsonl", [*rows])

    def delivered() -> list[str]:
        found = store.query("SELECT count(*), sum(occurrences) FROM shards")[0]
        return [] if found == (2, 600) else [f"the store has {found}"]

    yield "the very first write", home, lambda: store.query("SELECT 1"), lambda: []
    yield "a delivery", home, lambda: deliver_all(home, tiny_config()), delivered
    yield "a publish", home, store.publish, lambda: [] if home.published.exists() else ["nothing is published"]
    before = home.published.read_bytes()
    with store.write() as connection:
        connection.execute("INSERT INTO costs (stage, processed) SELECT 'x', i FROM range(20000) t(i)")

    def published_anew() -> list[str]:
        return [] if home.published.read_bytes() != before else ["the published file is the old one"]

    yield "another publish", home, store.publish, published_anew
    manifest = some_manifest()
    yield (
        "a manifest",
        home,
        lambda: list_manifest(store, manifest),
        lambda: verify_manifest(home.manifests / "v0001").problems,
    )


def list_manifest(store: Store, manifest: Any) -> None:
    """Write a manifest's folder inside the transaction that would list it, as the stage does."""
    with store.write():
        write_manifest(manifest, store.home.manifests)


def some_manifest() -> Any:
    from dataclasses import replace

    count = 4_000
    rows = pa.table(
        {
            "order": pa.array(range(count), pa.int64()),
            "doc_id": doc_ids([str(number) for number in range(count)]),
            "uri": pa.array(["news/a.jsonl"] * count),
            "row": pa.array(range(count), pa.int64()),
            "source": pa.array(["news"] * count),
            "tokens": pa.array([1] * count, pa.int64()),
            "repeats": pa.array([1] * count, pa.int32()),
            "reason": pa.array(["chosen"] * count),
        }
    )
    made = build_manifest(
        rows, version="", token_budget=count, seed=0, configuration={}, inputs={}, weights={"news": 1.0}, parent=None,
        funnel={}, control={}, environment={},
    )  # fmt: skip
    return replace(made, version="v0001")


def leftovers(home: Home) -> list[str]:
    """Return the temporary files that a failure, unlike a kill, must take along."""
    hidden = [path for path in home.root.rglob(".*") if path.name not in (".", "..")]
    spools = [*home.scratch.glob("delivery-*"), *home.scratch.glob("part-*")]
    return [f"left behind: {path}" for path in (*hidden, *spools)]


def play(folder: Path, how: str) -> dict[str, Any]:
    said: dict[str, list[str]] = {}
    wrong: list[str] = []
    for name, home, do, look in scenes(folder):
        failures = []
        for room in ROOMS:
            with squeezed(how, folder, room):
                error = attempt(do, home)
            found = [*problems(home, doctor=room == 0), *leftovers(home)]  # the doctor looks again when it has worked
            wrong += [f"{name}, {room} bytes of room: {problem}" for problem in found]
            if error.startswith("UNCLEAR"):
                wrong.append(f"{name}, {room} bytes of room: {error}")
            if not error:
                break
            failures.append(f"{room}: {error}")
        if failures and len(failures) == len(ROOMS):
            error = attempt(do, home)
            wrong += [f"{name}, with room again: {error}"] if error else []
        wrong += [f"{name}, in the end: {problem}" for problem in [*look(), *problems(home), *leftovers(home)]]
        said[name] = failures
    return {"failures": said, "wrong": wrong}


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    place = Path(sys.argv[1]) / "disk"
    place.mkdir(exist_ok=True)
    print(json.dumps(play(place, sys.argv[2])))
    shutil.rmtree(place, ignore_errors=True)
