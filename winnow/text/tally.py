"""Counts of one file's records, good and bad, over all the pieces in which it is read."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

from winnow.text.limits import Limits
from winnow.text.quarantine import EXPECTED, Quarantined

MAX_QUARANTINE_ROWS = 1000


@dataclass
class Tally:
    """What was counted so far: ``records == occurrences + quarantined``.

    ``listed`` are the first ``MAX_QUARANTINE_ROWS`` bad records, one by one; the others are summed a reason, in
    ``further``. ``failure`` says why none of the documents may be admitted.
    """

    records: int = 0
    occurrences: int = 0
    quarantined: int = 0
    failure: str | None = None
    listed: list[Quarantined] = field(default_factory=list)
    further: dict[str, Quarantined] = field(default_factory=dict)
    bad: Counter[str] = field(default_factory=Counter)

    def good(self, documents: int) -> None:
        self.records += documents
        self.occurrences += documents

    def add(self, row: Quarantined) -> bool:
        """Count one quarantine row, and say whether it is listed."""
        self.records += row.records
        self.quarantined += row.records
        if row.reason not in EXPECTED:
            self.bad[row.reason] += 1
        return self._keep(row)

    def _keep(self, row: Quarantined) -> bool:
        if len(self.listed) < MAX_QUARANTINE_ROWS:
            self.listed.append(row)
            return True
        first = self.further.setdefault(row.reason, replace(row, records=0))
        self.further[row.reason] = replace(first, records=first.records + row.records)
        return False

    def merge(self, later: Tally) -> None:
        """Add the counts of the piece that follows; the result is that of one piece."""
        self.records += later.records
        self.occurrences += later.occurrences
        self.quarantined += later.quarantined
        self.bad.update(later.bad)
        self.failure = self.failure or later.failure
        for row in (*later.listed, *later.further.values()):
            self._keep(row)

    def judge(self, limits: Limits) -> list[Quarantined]:
        """Apply the limits to the whole file, once; return the rows that only its end brings.

        They are one for each reason with bad records that are not listed, and one ``file_failed`` for the readable
        records of a file that fails.
        """
        rows = [
            replace(row, detail=f"{row.records} further records that are not listed; the first: {row.detail}")
            for row in self.further.values()
        ]
        bad = self.bad.total()
        judged = self.occurrences + bad
        if self.failure is None and bad > max(limits.max_bad_records, limits.max_bad_fraction * judged):
            reasons = ", ".join(f"{reason} {count}" for reason, count in self.bad.most_common())
            self.failure = (
                f"{bad} of {judged} records are bad ({reasons}), more than max_bad_records={limits.max_bad_records} "
                f"and max_bad_fraction={limits.max_bad_fraction:g} allow: mend the file or the field map, or raise them"
            )
        if self.failure is not None and self.occurrences:
            rows.append(self.refuse())
        return rows

    def refuse(self) -> Quarantined:
        """Return the row that stands for all readable records of a failed file; from now on they are quarantined."""
        row = Quarantined(None, None, "file_failed", self.failure or "", "", self.occurrences)
        self.quarantined += self.occurrences
        self.occurrences = 0
        return row
