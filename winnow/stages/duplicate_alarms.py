"""Runaway removal: a near-duplicate group or a source's loss that is too large to be believed.

A template that makes thousands of different documents look alike, a wrong field taken for the text or a threshold too
low show here first. The asset check ``duplicates_within_reason`` stops the run, and every later one is stopped where
the candidate pool is built, until the corpus, the settings or the limits are changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from winnow.config import Duplicates
from winnow.errors import UserError

if TYPE_CHECKING:
    from winnow.store.store import Connection, Store

SMALL_SOURCE = 100
"""A source of fewer documents may lose all of them: a sample that another source contains is no alarm."""
GROUPS_SHOWN = 5
EXCERPT = 80

REMOVED = """
SELECT d.source,
       count(*) AS documents,
       count(n.doc_id) AS removed,
       count(n.doc_id) / count(*) AS share
FROM documents d
LEFT JOIN (SELECT doc_id FROM duplicates WHERE kind = 'near' AND keeper_id <> doc_id) n USING (doc_id)
GROUP BY d.source
ORDER BY share DESC, d.source
"""
GROUPS = """
SELECT n.doc_id AS keeper_id, n.group_size AS documents, d.source, d.original_id
FROM duplicates n JOIN documents d USING (doc_id)
WHERE n.kind = 'near' AND n.doc_id = n.keeper_id AND n.group_size > $above
ORDER BY n.group_size DESC, n.doc_id
LIMIT $most
"""
GROUPS_OF_SOURCE = """
SELECT n.keeper_id, count(*) AS documents, any_value(k.source) AS source, any_value(k.original_id) AS original_id
FROM duplicates n
JOIN documents d ON d.doc_id = n.doc_id
JOIN documents k ON k.doc_id = n.keeper_id
WHERE n.kind = 'near' AND n.doc_id <> n.keeper_id AND d.source = $source
GROUP BY n.keeper_id
ORDER BY documents DESC, n.keeper_id
LIMIT $most
"""
EXCERPTS = """
SELECT doc_id, left(trim(regexp_replace(left(text, 1000), '\\s+', ' ', 'g')), $characters) FROM texts
WHERE doc_id IN (SELECT unnest($ids))
"""

LOOK = "SELECT left(text, 300) FROM duplicates JOIN texts USING (doc_id) WHERE keeper_id = '{keeper}' LIMIT 20"


@dataclass(frozen=True)
class SourceLoss:
    """How many of a source's distinct documents are near duplicates of a kept one."""

    source: str
    documents: int
    removed: int

    @property
    def share(self) -> float:
        return self.removed / self.documents if self.documents else 0.0


@dataclass(frozen=True)
class Group:
    """A group of near duplicates: its keeper, where that comes from and how it begins."""

    keeper_id: str
    documents: int
    source: str
    original_id: str | None
    excerpt: str


@dataclass(frozen=True)
class Alarm:
    """One limit that is passed: ``place`` is a group's keeper or a source; ``groups`` are those to look at."""

    setting: str
    place: str
    text: str
    groups: Sequence[Group]


def removed_by_source(connection: Connection) -> list[SourceLoss]:
    """Return every source's loss, the greatest share first; the connection sees ``documents`` and ``duplicates``."""
    return [SourceLoss(*row[:3]) for row in connection.execute(REMOVED).fetchall()]


def find_alarms(connection: Connection, settings: Duplicates) -> list[Alarm]:
    """Return the limits that the present groups pass; the connection sees documents, duplicates and texts."""
    alarms = []
    rows = connection.execute(GROUPS, {"above": settings.alarm_group, "most": GROUPS_SHOWN}).fetchall()
    for group in _with_excerpts(connection, rows):
        text = f"{group.documents:,} documents are near duplicates of {group.keeper_id} ({group.source})"
        alarms.append(Alarm("alarm_group", group.keeper_id, f"{text}: more than {settings.alarm_group:,}", [group]))
    for loss in removed_by_source(connection):
        if loss.documents < SMALL_SOURCE or loss.share <= settings.max_removed_share:
            continue
        rows = connection.execute(GROUPS_OF_SOURCE, {"source": loss.source, "most": GROUPS_SHOWN}).fetchall()
        text = f"source '{loss.source}' loses {loss.removed:,} of its {loss.documents:,} documents ({loss.share:.1%})"
        limit = f"as near duplicates: more than {settings.max_removed_share:.1%}"
        alarms.append(Alarm("max_removed_share", loss.source, f"{text} {limit}", _with_excerpts(connection, rows)))
    return alarms


def _with_excerpts(connection: Connection, rows: Sequence[tuple[Any, ...]]) -> list[Group]:
    if not rows:
        return []
    parameters = {"ids": [row[0] for row in rows], "characters": EXCERPT}
    begins = dict(connection.execute(EXCERPTS, parameters).fetchall())
    return [Group(str(row[0]), row[1], row[2], row[3], begins.get(row[0], "")) for row in rows]


def told(alarms: Sequence[Alarm]) -> str:
    """Return alarms as one sentence for people: what, where, the groups to look at, and the mend."""
    parts = []
    for alarm in alarms:
        groups = "; ".join(f"{group.documents:,} like {group.keeper_id} “{group.excerpt}”" for group in alarm.groups)
        parts.append(f"{alarm.text} ({groups})" if groups else alarm.text)
    limits = " and ".join(f"duplicates.{name}" for name in dict.fromkeys(alarm.setting for alarm in alarms))
    first = next((group.keeper_id for alarm in alarms for group in alarm.groups), "")
    return (
        f'near duplicates: {". ".join(parts)}. Look at a group (winnow sql "{LOOK.format(keeper=first)}"): if its '
        "documents are no copies, raise duplicates.threshold or take the template out of the texts; if they are, raise "
        f"{limits}"
    )


def stored_alarms(store: Store, settings: Duplicates) -> list[Alarm]:
    """Return :func:`find_alarms` of the working store."""
    with store.read("texts") as connection:
        return find_alarms(connection, settings)


def require_reason(store: Store, settings: Duplicates) -> None:
    """Raise :class:`UserError` while the present groups pass a limit: nothing may be selected from them."""
    alarms = stored_alarms(store, settings)
    if alarms:
        raise UserError(told(alarms))
