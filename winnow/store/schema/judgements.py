"""Tables of what is said of documents: signals, sketches, duplicates, overlap, vectors, clusters."""

from __future__ import annotations

from winnow.store.schema.table import DOC_ID, Column, Table


def _signal_columns() -> tuple[Column, ...]:
    from winnow.quality.signals import COLUMNS

    return tuple((name, "DOUBLE", meaning) for name, meaning in COLUMNS.items())


def judgements() -> tuple[Table, ...]:
    """Return these tables in the order in which a document travels."""
    return (
        Table(
            "signals",
            "A document's heuristic quality signals and Gopher's verdict.",
            (
                DOC_ID,
                ("version", "VARCHAR", "version of the signals' definitions and thresholds"),
                *_signal_columns(),
                ("gopher_passed", "BOOLEAN", "true when every rule of Gopher's quality and repetition sets holds"),
                ("gopher_reason", "VARCHAR", "the first rule that failed, with value and limit"),
            ),
            ("doc_id", "version"),
            "signals",
            document="doc_id",
        ),
        Table(
            "sketches",
            "MinHash signatures.",
            (
                DOC_ID,
                ("scheme", "VARCHAR", "permutations, hash, shingles and version of the sketch"),
                ("signature", "BLOB", "little-endian uint32 x permutations, equal to datasketch's hashvalues"),
            ),
            ("doc_id", "scheme"),
            "duplicates",
            parts=True,
            document="doc_id",
        ),
        Table(
            "bands",
            "Locality-sensitive keys of the signatures: equal band and key make two documents a candidate pair.",
            (
                DOC_ID,
                ("scheme", "VARCHAR", "sketch scheme and band plan"),
                ("band", "SMALLINT", "band number"),
                ("key", "UBIGINT", "hash of the band's rows"),
            ),
            ("doc_id", "scheme", "band"),
            "duplicates",
            parts=True,
            document="doc_id",
        ),
        Table(
            "bucket_centers",
            "The documents that every member of an oversize bucket is compared with.",
            (
                ("scheme", "VARCHAR", "sketch scheme and band plan"),
                ("band", "INTEGER", "band number"),
                ("key", "UBIGINT", "hash of the band's rows"),
                DOC_ID,
                ("members", "UBIGINT", "documents in the bucket"),
            ),
            ("scheme", "band", "key", "doc_id"),
            "duplicates",
            internal=True,
        ),
        Table(
            "duplicate_pairs",
            "Verified pairs: every one carries the exact Jaccard similarity of its shingle sets.",
            (
                ("doc_a", "UUID", "the smaller id"),
                ("doc_b", "UUID", "the larger id"),
                ("kind", "VARCHAR", "near"),
                ("similarity", "DOUBLE", "exact Jaccard of the 5-word shingle sets"),
                ("scheme", "VARCHAR", "sketch scheme and band plan that found it"),
            ),
            ("doc_a", "doc_b", "kind", "scheme"),
            "duplicates",
        ),
        Table(
            "duplicates",
            "Which documents repeat another, and which copy is kept.",
            (
                DOC_ID,
                ("kind", "VARCHAR", "exact (copies of one text) or near"),
                ("component", "UUID", "smallest doc_id of the component of verified pairs"),
                ("keeper_id", "UUID", "the document that is kept in its place (itself when it is kept)"),
                ("similarity", "DOUBLE", "verified similarity to the keeper (1 for the keeper itself)"),
                ("group_size", "BIGINT", "documents that share the keeper; for exact, occurrences of the text"),
            ),
            ("doc_id", "kind"),
            "duplicates",
            document="doc_id",
        ),
        Table(
            "reference_sets",
            "A target that influence is measured on, and evaluation sets to stay clear of.",
            (
                ("reference", "VARCHAR", "its name"),
                ("kind", "VARCHAR", "reference or evaluation"),
                ("digest", "VARCHAR", "digest of its items and of its split"),
                ("selecting_items", "BIGINT", "items that selection may look at"),
                ("judging_items", "BIGINT", "items held back to judge the selection"),
                ("removed_items", "BIGINT", "items dropped because they overlap across the two parts"),
                ("path", "VARCHAR", "the file it was read from"),
            ),
            ("reference", "digest"),
            "contamination",
        ),
        Table(
            "reference_items",
            "The items of the reference and evaluation sets.",
            (
                ("digest", "VARCHAR", "the reference set's digest"),
                ("item", "BIGINT", "position in the set"),
                ("item_id", "VARCHAR", "the file's own id"),
                ("part", "VARCHAR", "selecting, judging or evaluation"),
                ("topic", "VARCHAR", "the unit by which it was split"),
                ("text", "VARCHAR", "the item"),
            ),
            ("digest", "item"),
            "contamination",
        ),
        Table(
            "contamination",
            "Word n-gram overlap of a document with one item of a reference or evaluation set.",
            (
                DOC_ID,
                ("evaluation_set", "VARCHAR", "name of the set"),
                ("version", "VARCHAR", "digest of the set and of the method's settings"),
                ("item", "BIGINT", "the item with the longest match, see `reference_items`"),
                ("matched", "BIGINT", "n-grams of the document found in the set"),
                ("longest_match", "BIGINT", "longest run of matching words"),
                ("span_start", "BIGINT", "first character of the longest match in the document"),
                ("span_end", "BIGINT", "character after its end"),
                ("coverage", "DOUBLE", "share of the document's words inside matches"),
                ("contaminated", "BOOLEAN", "longest_match reaches the configured number of words"),
            ),
            ("doc_id", "evaluation_set", "version"),
            "contamination",
            document="doc_id",
        ),
        Table(
            "embeddings",
            "Document vectors.",
            (
                DOC_ID,
                ("model", "VARCHAR", "encoder digest: weights, dtype, truncation"),
                ("vector", "FLOAT[]", "L2-normalised embedding"),
            ),
            ("doc_id", "model"),
            "embeddings",
            parts=True,
            document="doc_id",
        ),
        Table(
            "clusters",
            "Document to cluster: the bandit's arms.",
            (
                DOC_ID,
                ("clustering", "VARCHAR", "version of the centroids"),
                ("cluster", "INTEGER", "nearest centroid"),
                ("distance", "DOUBLE", "1 - cosine to it"),
            ),
            ("doc_id", "clustering"),
            "embeddings",
            document="doc_id",
        ),
        Table(
            "cluster_summary",
            "A cluster: size, label, mean signals.",
            (
                ("clustering", "VARCHAR", "version of the centroids"),
                ("cluster", "INTEGER", "number of the cluster"),
                ("documents", "BIGINT", "documents in it now"),
                ("label", "VARCHAR", "its most distinctive terms when it was fitted (class TF-IDF)"),
                ("mean_distance", "DOUBLE", "mean distance to the centroid"),
                ("gopher_pass_share", "DOUBLE", "share of its documents that pass Gopher's rules"),
                ("duplicate_share", "DOUBLE", "share of its documents that are near duplicates of a kept one"),
            ),
            ("clustering", "cluster"),
            "embeddings",
        ),
    )
