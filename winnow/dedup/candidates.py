"""Candidate pairs from bands, out of core in DuckDB, incremental and free of history.

Two documents are candidates in a state of the store when they share a bucket (a band and its key) that has at most
``max_bucket`` members, or a larger one in which at least one of them is a *center*: one of the ``centers`` members with
the smallest doc_ids. Larger buckets come from boilerplate; comparing all their pairs would be quadratic.

The open connection must see three relations (tables, views or registered frames):

- ``bands(band INTEGER, key UBIGINT, doc_id UUID)``: all live documents that have a signature;
- ``unpaired(doc_id UUID)``: those that no earlier call has paired;
- ``former_centers(band INTEGER, key UBIGINT, doc_id UUID)``: ``bucket_centers`` of the last call, empty at first.

A call leaves two temporary tables. ``candidate_pairs(doc_a UUID, doc_b UUID)``, distinct and doc_a < doc_b, are the
candidates of the current state that must be compared now: all that were none in the last state, rarely one that was.
``bucket_centers(band, key, doc_id, members)`` are the centers of every oversize bucket, to be stored for the next call.

Why that is enough: a pair of two old documents in an old bucket was a candidate last time, unless the bucket was
oversize and neither was its center. So the pairs to compare now are those with a new document, and those in a bucket
that was oversize of which neither is a former center: withdrawals may have made a new center or shrunk the bucket.
Growth takes candidates away too (a bucket becomes oversize), so verified pairs count only while :func:`valid_pairs`
lists them. Both together make any sequence of deliveries and withdrawals end where one delivery of the final state
would.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from winnow.errors import UserError

if TYPE_CHECKING:
    from winnow.store.store import Connection

log = logging.getLogger(__name__)

MAX_BUCKET = 256
CENTERS = 8

# Buckets in which something can have changed, and their sizes now.
_BUCKETS = """
CREATE OR REPLACE TEMP TABLE candidate_buckets AS
WITH touched AS (
    SELECT band, key FROM bands SEMI JOIN unpaired USING (doc_id)
    UNION
    SELECT band, key FROM former_centers
)
SELECT band, key, count(*) AS members
FROM bands SEMI JOIN touched USING (band, key)
GROUP BY band, key
HAVING count(*) > 1
"""

# An oversize bucket is always touched: it has grown past the limit by new members, or it was oversize before.
_CENTERS = """
CREATE OR REPLACE TEMP TABLE bucket_centers AS
SELECT band, key, unnest(min(doc_id, $centers)) AS doc_id, any_value(members) AS members
FROM bands JOIN candidate_buckets USING (band, key)
WHERE members > $max_bucket
GROUP BY band, key
"""

# fresh: not paired before; reopened: in a bucket that was oversize; was_center: one of that bucket's former centers.
_MEMBERS = """
CREATE OR REPLACE TEMP TABLE candidate_members AS
WITH former AS (SELECT DISTINCT band, key FROM former_centers)
SELECT
    bands.band,
    bands.key,
    bands.doc_id,
    candidate_buckets.members,
    unpaired.doc_id IS NOT NULL AS fresh,
    former.key IS NOT NULL AS reopened,
    former_centers.doc_id IS NOT NULL AS was_center
FROM bands
JOIN candidate_buckets USING (band, key)
LEFT JOIN unpaired ON unpaired.doc_id = bands.doc_id
LEFT JOIN former ON former.band = bands.band AND former.key = bands.key
LEFT JOIN former_centers
    ON former_centers.band = bands.band AND former_centers.key = bands.key AND former_centers.doc_id = bands.doc_id
"""

_PAIRS = """
CREATE OR REPLACE TEMP TABLE candidate_pairs AS
WITH small AS (
    SELECT * FROM candidate_members WHERE members <= $max_bucket
), large AS (
    SELECT * FROM candidate_members WHERE members > $max_bucket
), center AS (
    SELECT large.* FROM large SEMI JOIN bucket_centers USING (band, key, doc_id)
), pair AS (
    SELECT a.doc_id AS doc_a, b.doc_id AS doc_b
    FROM small AS a
    JOIN small AS b ON a.band = b.band AND a.key = b.key AND a.doc_id < b.doc_id
    WHERE a.fresh OR b.fresh OR (a.reopened AND NOT a.was_center AND NOT b.was_center)
    UNION ALL
    SELECT least(a.doc_id, b.doc_id), greatest(a.doc_id, b.doc_id)
    FROM center AS a
    JOIN large AS b ON a.band = b.band AND a.key = b.key AND a.doc_id <> b.doc_id
    WHERE a.fresh OR b.fresh OR (a.reopened AND NOT a.was_center AND NOT b.was_center)
)
SELECT DISTINCT doc_a, doc_b FROM pair
"""

_VALID = """
CREATE OR REPLACE TEMP TABLE valid_pairs AS
WITH oversize AS (SELECT DISTINCT band, key FROM bucket_centers)
SELECT DISTINCT pairs.doc_a, pairs.doc_b
FROM pairs
JOIN bands AS a ON a.doc_id = pairs.doc_a
JOIN bands AS b ON b.doc_id = pairs.doc_b AND b.band = a.band AND b.key = a.key
LEFT JOIN oversize ON oversize.band = a.band AND oversize.key = a.key
LEFT JOIN bucket_centers AS center_a
    ON center_a.band = a.band AND center_a.key = a.key AND center_a.doc_id = a.doc_id
LEFT JOIN bucket_centers AS center_b
    ON center_b.band = b.band AND center_b.key = b.key AND center_b.doc_id = b.doc_id
WHERE oversize.key IS NULL OR center_a.doc_id IS NOT NULL OR center_b.doc_id IS NOT NULL
"""

_REPORT = """
SELECT
    (SELECT count(*) FROM candidate_pairs),
    count(*),
    coalesce(max(members), 0),
    coalesce(sum(members), 0)
FROM (SELECT DISTINCT band, key, members FROM bucket_centers)
"""


@dataclass(frozen=True)
class CandidateReport:
    """What a call of :func:`find_candidates` found; oversize buckets are an alarm for boilerplate or a bad key."""

    pairs: int
    oversize_buckets: int
    largest_bucket: int  # members of the largest oversize bucket, 0 if there is none
    oversize_members: int  # over all oversize buckets, a document once a bucket


def find_candidates(connection: Connection, max_bucket: int = MAX_BUCKET, centers: int = CENTERS) -> CandidateReport:
    """Make the temporary tables ``candidate_pairs`` and ``bucket_centers`` from the relations of the module docstring.

    Both limits belong to the stored state: after a change of either, pass all documents as ``unpaired`` once.
    Raises ``UserError`` if a limit is below its least value (``max_bucket`` 2, ``centers`` 1).
    """
    if max_bucket < 2 or centers < 1:
        raise UserError(
            f"max_bucket={max_bucket}, centers={centers}: set max_bucket to at least 2 and centers to at least 1"
        )
    connection.execute(_BUCKETS)
    connection.execute(_CENTERS, {"max_bucket": max_bucket, "centers": centers})
    connection.execute(_MEMBERS)
    connection.execute(_PAIRS, {"max_bucket": max_bucket})
    connection.execute("DROP TABLE candidate_members")
    connection.execute("DROP TABLE candidate_buckets")
    row = connection.execute(_REPORT).fetchone()
    report = CandidateReport(*(int(value) for value in row or (0, 0, 0, 0)))
    log.info("%d candidate pairs", report.pairs)
    if report.oversize_buckets:
        log.warning(
            "%d buckets have more than %d members (largest %d): only pairs with their %d smallest doc_ids are compared",
            report.oversize_buckets,
            max_bucket,
            report.largest_bucket,
            centers,
        )
    return report


def valid_pairs(connection: Connection) -> int:
    """Make the temporary table ``valid_pairs(doc_a, doc_b)``, stored pairs that are candidates now; return its size.

    The connection must see ``bands`` (all live documents), ``bucket_centers`` as the last :func:`find_candidates` made
    it, and ``pairs(doc_a UUID, doc_b UUID)``: the verified pairs stored so far, in any state they were found. Pairs of
    which a document is gone drop out.
    """
    connection.execute(_VALID)
    row = connection.execute("SELECT count(*) FROM valid_pairs").fetchone()
    return int(row[0]) if row else 0
