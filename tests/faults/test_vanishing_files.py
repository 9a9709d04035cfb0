"""A source file that changes under the reader: none of its rows count, the others' do, and the next run takes it."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_world import deliver_all, tiny_config, write_lines
from wholeness import problems

from winnow.config import save_config
from winnow.home import Home
from winnow.stages.staging import Delivered
from winnow.store.store import open_store
from winnow.text.readers import Batch, ShardReader

ROWS = 400
BIG, SMALL = "news/big.jsonl", "tales/small.jsonl"


def rows(seed: str, count: int = ROWS) -> list[dict[str, Any] | str]:
    """Return records whose lines are as long as those of another seed of as many letters: cuts fit both."""
    draw = random.Random(seed)
    return [{"id": f"{seed}-{number:04}", "text": f"{draw.getrandbits(20_000):05000x}"} for number in range(count)]


class Inbox:
    """A home with a big file (2 MB, read in many batches) and a small one beside it."""

    def __init__(self, root: Path, shard_bytes: int) -> None:
        self.home = Home(root)
        self.config = tiny_config(corpus={"batch_bytes": 20_000, "shard_bytes": shard_bytes})
        save_config(self.config, self.home.config)
        self.big = write_lines(self.home.inbox / BIG, rows("first"))
        write_lines(self.home.inbox / SMALL, rows("small", 3))

    def deliver(self) -> Delivered:
        return deliver_all(self.home, self.config)

    def occurrences(self) -> dict[str, int]:
        return dict(open_store(self.home).query("SELECT shard, count(*) FROM occurrences GROUP BY shard"))

    def writings(self) -> set[str]:
        """Return which writings of the big file its rows are from."""
        query = "SELECT DISTINCT split_part(original_id, '-', 1) FROM occurrences WHERE shard = $shard"
        return {name for (name,) in open_store(self.home).query(query, {"shard": BIG})}


@pytest.fixture(params=[300_000, 100_000_000], ids=["in pieces", "whole"])
def inbox(request: pytest.FixtureRequest, tmp_path: Path) -> Inbox:
    return Inbox(tmp_path / "home", request.param)


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Do something when the first rows of the big file have been read, and most have not."""

    def arrange(do: Callable[[], None]) -> None:
        original = ShardReader.__iter__
        waiting = [do]

        def iterate(reader: ShardReader) -> Iterator[Batch]:
            for batch in original(reader):
                yield batch
                while waiting and "big" in str(reader.path):
                    waiting.pop()()

        monkeypatch.setattr(ShardReader, "__iter__", iterate)

    return arrange


def vanish(big: Path) -> None:
    big.unlink()


def truncate(big: Path) -> None:
    os.truncate(big, big.stat().st_size // 3)


def replace(big: Path) -> None:
    """Put another file in its place, as a careful deliverer does."""
    coming = write_lines(big.with_name("coming"), rows("again"))
    os.utime(coming, (1_800_000_000, 1_800_000_000))
    coming.replace(big)


def overwrite(big: Path) -> None:
    """Write other rows into the file itself."""
    big.write_text("".join(json.dumps(row) + "\n" for row in rows("again")))


@pytest.mark.parametrize("change", [vanish, truncate, replace, overwrite])
def test_a_file_that_changes_while_it_is_read_gives_all_its_rows_or_none(
    inbox: Inbox, meanwhile: Callable[[Callable[[], None]], None], change: Callable[[Path], None]
) -> None:
    meanwhile(lambda: change(inbox.big))
    report = inbox.deliver()
    assert inbox.occurrences()[SMALL] == 3
    if BIG in inbox.occurrences():  # the file as it was, as its reader held it open
        assert inbox.occurrences()[BIG] == ROWS and inbox.writings() == {"first"}
    else:
        (why,) = [*report.refused, *report.failed]
        assert "big.jsonl" in why
    assert problems(inbox.home) == []

    inbox.deliver()  # what is there now is taken by the next
    assert inbox.occurrences().get(BIG, 0) == (inbox.big.read_text().count("\n") if inbox.big.exists() else 0)
    assert inbox.writings() == {vanish: set(), truncate: {"first"}}.get(change, {"again"})
    assert not inbox.deliver().changed
    assert problems(inbox.home) == []


def test_rows_that_stand_stay_when_their_file_changes_while_it_is_read_again(
    inbox: Inbox, meanwhile: Callable[[Callable[[], None]], None]
) -> None:
    inbox.deliver()
    write_lines(inbox.big, rows("other", ROWS + 1))
    meanwhile(lambda: truncate(inbox.big))
    assert inbox.deliver().refused
    assert inbox.writings() == {"first"} and inbox.occurrences()[BIG] == ROWS
    assert problems(inbox.home) == []
