"""Every table of the store: its columns, their meaning, and whether its rows live in DuckDB or in Parquet parts.

This dictionary is the single source of the DDL (both backends), of ``docs/tables.md`` and of the published views.
The types are those that DuckLake has too: no keys, enums, fixed-size arrays or HUGEINT; the writer keeps keys unique.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

SCHEMA_VERSION = 2

Column = tuple[str, str, str]
"""name, DuckDB type, meaning"""


@dataclass(frozen=True)
class Table:
    """One table: ``parts`` says that its rows are immutable Parquet files that a published view reads.

    ``key`` are the columns that identify a row. ``document`` names the column of documents that the row judges, so that
    the row goes (tables) or is hidden (parts) when the last occurrence of the document goes.
    """

    name: str
    meaning: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    stage: str
    parts: bool = False
    document: str | None = None
    internal: bool = False

    def create(self) -> str:
        columns = ", ".join(f'"{name}" {kind}' for name, kind, _ in self.columns)
        return f"CREATE TABLE IF NOT EXISTS {self.name} ({columns})"


def _signal_columns() -> tuple[Column, ...]:
    from winnow.quality.signals import COLUMNS

    return tuple((name, "DOUBLE", meaning) for name, meaning in COLUMNS.items())


DOC_ID: Column = ("doc_id", "UUID", "xxh3-128 of the document's UTF-8 text")


@cache
def tables() -> dict[str, Table]:
    """Return every table by name, in the order in which a document travels."""
    return {table.name: table for table in (*_corpus(), *_judgements(), *_model(), *_selection(), *_bookkeeping())}


def _corpus() -> tuple[Table, ...]:
    return (
        Table(
            "shards",
            "A file as delivered.",
            (
                ("shard", "VARCHAR", "the file's uri relative to its corpus root, `source/file`"),
                ("batch", "VARCHAR", "the `shards` partition that delivered it"),
                ("source", "VARCHAR", "the file's folder below the corpus root"),
                ("path", "VARCHAR", "where the file lay when it was read: a path or a URI"),
                ("format", "VARCHAR", "the reader's name, and the compression: jsonl.zst, parquet, warc.gz, ..."),
                ("bytes", "BIGINT", "size of the file"),
                (
                    "mtime_ns",
                    "BIGINT",
                    "its modification time in nanoseconds, remote: a number of its ETag; with the size it tells an "
                    "unchanged file",
                ),
                ("sha256", "VARCHAR", "digest of its bytes"),
                ("reader", "VARCHAR", "digest of the field map, limits and reader version it was read with"),
                ("normalization", "VARCHAR", "what was done to its texts on arrival, with the version; `none`"),
                ("fields", "VARCHAR", "top-level fields of its records and their JSON types, JSON"),
                ("records", "BIGINT", "records in the file = occurrences + quarantined"),
                ("occurrences", "BIGINT", "records that became documents"),
                ("quarantined", "BIGINT", "records that could not be read"),
                ("failed", "BOOLEAN", "true when too many records were bad: no document of the file was admitted"),
                ("parts", "VARCHAR[]", "digests of the parts that hold its texts"),
                ("delivered_at", "TIMESTAMP", "when it was read (UTC)"),
                ("run_id", "VARCHAR", "the run that read it"),
            ),
            ("shard",),
            "corpus",
        ),
        Table(
            "occurrences",
            "A document in a shard; an identical text in ten places has ten.",
            (
                DOC_ID,
                ("shard", "VARCHAR", "the file, see `shards`"),
                ("row", "BIGINT", "0-based record number in the file"),
                ("source", "VARCHAR", "the shard's source"),
                ("original_id", "VARCHAR", "the file's own id"),
                ("url", "VARCHAR", "the record's url, if it has one"),
                ("date", "VARCHAR", "the record's date as it stands there"),
                ("metadata", "VARCHAR", "all other fields, as canonical JSON"),
                ("characters", "BIGINT", "length of the text in code points"),
                ("bytes", "BIGINT", "length of the text in UTF-8"),
                ("words", "BIGINT", "white-space separated words"),
            ),
            ("shard", "row"),
            "corpus",
        ),
        Table(
            "documents",
            "A distinct text; derived from live occurrences, it exists while one is left.",
            (
                DOC_ID,
                ("shard", "VARCHAR", "shard of the canonical occurrence"),
                ("row", "BIGINT", "row of the canonical occurrence"),
                ("source", "VARCHAR", "source of the canonical occurrence"),
                ("original_id", "VARCHAR", "the file's own id there"),
                ("characters", "BIGINT", "length of the text in code points"),
                ("bytes", "BIGINT", "length of the text in UTF-8"),
                ("words", "BIGINT", "white-space separated words"),
                ("dup_count", "BIGINT", "live occurrences of this text"),
            ),
            ("doc_id",),
            "corpus",
        ),
        Table(
            "quarantine",
            "A record that could not be read, and why.",
            (
                ("shard", "VARCHAR", "the file, see `shards`"),
                ("row", "BIGINT", "0-based record number, where it is known"),
                ("byte_offset", "BIGINT", "offset in the decompressed stream, where it is known"),
                ("reason", "VARCHAR", "what is wrong, as a word to group by"),
                ("detail", "VARCHAR", "what is wrong and how to mend it"),
                ("excerpt", "VARCHAR", "the first characters of the record"),
                ("records", "BIGINT", "how many records this row stands for (the rest of a failed file is one row)"),
                ("doc_id", "UUID", "the document of a record that was withdrawn; else null"),
                ("original_id", "VARCHAR", "the file's own id of a record that was withdrawn; else null"),
                ("url", "VARCHAR", "the url of a record that was withdrawn; else null"),
            ),
            ("shard", "row", "byte_offset", "reason"),
            "corpus",
        ),
        Table(
            "takedowns",
            "A demand to withdraw: documents that match are in no later manifest.",
            (
                ("kind", "VARCHAR", "doc_id, original_id, url or sha256 (of the text in UTF-8)"),
                ("value", "VARCHAR", "what is withdrawn"),
                ("reason", "VARCHAR", "why, as the user gave it"),
                ("added_at", "TIMESTAMP", "when (UTC)"),
            ),
            ("kind", "value"),
            "corpus",
        ),
        Table(
            "withdrawn",
            "A document that a takedown reached: its occurrences are in `quarantine`, and stay there.",
            (
                DOC_ID,
                ("kind", "VARCHAR", "kind of a takedown that reached it"),
                ("value", "VARCHAR", "its value, see `takedowns`"),
                ("withdrawn_at", "TIMESTAMP", "when (UTC)"),
            ),
            ("doc_id", "kind", "value"),
            "corpus",
        ),
        Table(
            "texts",
            "The text of every document.",
            (
                DOC_ID,
                ("shard", "VARCHAR", "the shard that holds this copy"),
                ("row", "BIGINT", "the record in it"),
                ("text", "VARCHAR", "the document"),
                ("original", "VARCHAR", "the text as delivered, where normalization changed it; else null"),
            ),
            ("doc_id",),
            "corpus",
            parts=True,
            document="doc_id",
        ),
    )


def _judgements() -> tuple[Table, ...]:
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


def _model() -> tuple[Table, ...]:
    return (
        Table(
            "token_counts",
            "Tokens of a document, its end-of-text token included.",
            (
                DOC_ID,
                ("tokenizer", "VARCHAR", "tokenizer digest"),
                ("tokens", "BIGINT", "tokens that training on the document consumes"),
            ),
            ("doc_id", "tokenizer"),
            "model",
            document="doc_id",
        ),
        Table(
            "checkpoints",
            "A state of the model in training.",
            (
                ("checkpoint", "VARCHAR", "the `checkpoints` partition: the folder's name"),
                ("sequence", "BIGINT", "order of registration: of a lineage the largest is current"),
                ("path", "VARCHAR", "an ordinary Hugging Face folder, relative to WINNOW_HOME if it lies there"),
                ("weights_digest", "VARCHAR", "digest of its safetensors"),
                ("tokenizer", "VARCHAR", "digest of its tokenizer"),
                ("parameters", "BIGINT", "number of parameters"),
                ("step", "BIGINT", "optimizer steps so far, if recorded"),
                ("tokens", "BIGINT", "tokens trained on so far, if recorded"),
                ("manifest", "VARCHAR", "the manifest it was trained on, if recorded"),
                ("parent", "VARCHAR", "the checkpoint it was trained from, if recorded"),
                ("registered_at", "TIMESTAMP", "when Winnow saw it (UTC)"),
            ),
            ("checkpoint",),
            "model",
        ),
        Table(
            "probes",
            "A measurement of one document's influence at one checkpoint.",
            (
                DOC_ID,
                ("checkpoint", "VARCHAR", "where it was measured"),
                ("reference", "VARCHAR", "digest of the reference set"),
                ("method", "VARCHAR", "estimator, scope, damping and version; `oracle` = one real optimizer step"),
                ("phase", "VARCHAR", "opening, bandit or oracle"),
                (
                    "influence",
                    "DOUBLE",
                    "positive: training on the document lowers the reference loss; null if excluded",
                ),
                ("loss", "DOUBLE", "the model's loss on the document, nats a token"),
                ("tokens", "BIGINT", "tokens measured (the first window)"),
                ("reason", "VARCHAR", "why influence is null"),
            ),
            ("doc_id", "checkpoint", "reference", "method"),
            "influence",
            document="doc_id",
        ),
        Table(
            "influence_models",
            "A predictor of influence, fitted to the opening probes of one checkpoint.",
            (
                ("model", "VARCHAR", "its digest; the version of its scores"),
                ("checkpoint", "VARCHAR", "the checkpoint"),
                ("reference", "VARCHAR", "digest of the reference set"),
                ("method", "VARCHAR", "the probes' method"),
                ("probes", "BIGINT", "probes it was fitted to"),
                ("spearman", "DOUBLE", "held-out rank correlation (out-of-fold)"),
                ("spearman_low", "DOUBLE", "lower end of its 95% bootstrap interval"),
                ("spearman_high", "DOUBLE", "upper end"),
                ("oracle_probes", "BIGINT", "documents also measured by the one-step oracle"),
                ("oracle_spearman", "DOUBLE", "rank correlation of the gradient estimate with the oracle"),
                ("used", "BOOLEAN", "held-out Spearman reaches the floor, so selection ranks by its scores"),
                ("reason", "VARCHAR", "why it is not used"),
                ("path", "VARCHAR", "the fitted model, relative to WINNOW_HOME"),
            ),
            ("model",),
            "influence",
        ),
        Table(
            "scores",
            "A scorer's opinion of a document.",
            (
                DOC_ID,
                ("scorer", "VARCHAR", "influence"),
                ("version", "VARCHAR", "digest of the scorer"),
                ("checkpoint", "VARCHAR", "the checkpoint it holds for"),
                ("reference", "VARCHAR", "digest of the reference set it holds for"),
                ("score", "DOUBLE", "positive is better"),
            ),
            ("doc_id", "scorer", "version", "checkpoint", "reference"),
            "influence",
            parts=True,
            document="doc_id",
        ),
    )


def _selection() -> tuple[Table, ...]:
    return (
        Table(
            "bandit_rounds",
            "One pull of the bandit.",
            (
                ("selection", "VARCHAR", "the selection, see `manifests`"),
                ("clustering", "VARCHAR", "the clustering that the arms belong to"),
                ("round", "BIGINT", "0 is the opening round"),
                ("pull", "BIGINT", "number of the pull"),
                ("cluster", "BIGINT", "the arm"),
                ("probes", "BIGINT", "documents measured for this pull"),
                ("excluded", "BIGINT", "of these, without a finite influence"),
                ("reward", "DOUBLE", "their mean influence"),
                ("reward_variance", "DOUBLE", "its variance over those documents"),
                ("arm_mean", "DOUBLE", "mean over all probes of the arm so far, standardised by the opening round"),
                ("bonus", "DOUBLE", "exploration bonus when it was chosen, in standardised reward units"),
                ("score", "DOUBLE", "the policy's score when it was chosen"),
                ("documents_granted", "BIGINT", "documents this pull admitted"),
                ("tokens_granted", "BIGINT", "tokens this pull admitted"),
                ("verdict", "VARCHAR", "opening, accepted, refused or filled"),
                ("cost", "BIGINT", "tokens spent on its probes"),
            ),
            ("selection", "pull"),
            "selection",
        ),
        Table(
            "decisions",
            "Why a document is in or out: one row a document and selection.",
            (
                ("selection", "VARCHAR", "the selection, see `manifests`"),
                DOC_ID,
                ("stage", "VARCHAR", "the stage that decided"),
                ("verdict", "VARCHAR", "selected or rejected"),
                ("reason", "VARCHAR", "a word to group by"),
                ("detail", "VARCHAR", "the reason in full"),
                ("matched_doc", "UUID", "the keeper, for a near duplicate"),
                ("cluster", "INTEGER", "its cluster"),
                ("score", "DOUBLE", "the score it was ranked by"),
                ("in_control", "BOOLEAN", "chosen by the equal-budget random selection"),
            ),
            ("selection", "doc_id"),
            "selection",
            parts=True,
        ),
        Table(
            "mixtures",
            "Weights of the sources in a manifest.",
            (
                ("mixture", "VARCHAR", "the selection it belongs to"),
                ("source", "VARCHAR", "the source"),
                ("method", "VARCHAR", "natural and temperature (targets over the pool), selected (what came out)"),
                ("weight", "DOUBLE", "share of tokens"),
                ("tokens", "BIGINT", "tokens"),
                ("epochs", "DOUBLE", "tokens over the source's tokens in the pool"),
            ),
            ("mixture", "source", "method"),
            "mixture",
        ),
        Table(
            "manifests",
            "A version of the training set.",
            (
                ("version", "VARCHAR", "v0001, v0002, ..."),
                ("digest", "VARCHAR", "what makes two manifests the same"),
                ("parent", "VARCHAR", "the version before it"),
                ("selection", "VARCHAR", "the selection that chose its documents"),
                ("state", "VARCHAR", "digest of the corpus, checkpoint and configuration it answers to"),
                ("checkpoint", "VARCHAR", "the checkpoint whose influence it follows"),
                ("documents", "BIGINT", "rows"),
                ("tokens", "BIGINT", "tokens, repeats counted"),
                ("budget_tokens", "BIGINT", "the budget it kept to"),
                ("control_tokens", "BIGINT", "tokens of the equal-budget random selection"),
                ("influence_model", "VARCHAR", "the model whose scores rank its documents, see `influence_models`"),
                ("influence_model_used", "BOOLEAN", "false: the influence model was below its floor"),
                ("path", "VARCHAR", "folder with manifest.json and rows.parquet, relative to WINNOW_HOME"),
                ("snapshot", "VARCHAR[]", "digests of the parts that it needs, see `snapshots`"),
                ("configuration", "VARCHAR", "the semantic configuration, JSON"),
                ("environment", "VARCHAR", "recorded versions, CPU class and dtype, JSON"),
                ("made_at", "TIMESTAMP", "when (UTC)"),
            ),
            ("version",),
            "mixture",
        ),
        Table(
            "manifest_rows",
            "The documents of each manifest, in training order.",
            (
                ("version", "VARCHAR", "the manifest"),
                ("order", "BIGINT", "position in training"),
                DOC_ID,
                ("uri", "VARCHAR", "shard of the canonical occurrence"),
                ("row", "BIGINT", "record in it"),
                ("source", "VARCHAR", "its source"),
                ("tokens", "BIGINT", "its tokens"),
                ("repeats", "INTEGER", "how often it is trained on"),
                ("reason", "VARCHAR", "why it is in"),
            ),
            ("version", "order"),
            "mixture",
            parts=True,
        ),
        Table(
            "validations",
            "Does the manifest teach more than a random one? Loss on the judging part, two models from one checkpoint.",
            (
                ("version", "VARCHAR", "the manifest"),
                ("arm", "VARCHAR", "manifest or random"),
                ("tokens", "BIGINT", "tokens trained on when it was measured"),
                ("loss", "DOUBLE", "judging loss, nats a token"),
                ("final", "BOOLEAN", "the last measurement of the arm"),
            ),
            ("version", "arm", "tokens"),
            "mixture",
        ),
    )


def _bookkeeping() -> tuple[Table, ...]:
    return (
        Table(
            "costs",
            "What each stage did and what it cost.",
            (
                ("stage", "VARCHAR", "the asset"),
                ("partition", "VARCHAR", "its partition, if it has one"),
                ("run_id", "VARCHAR", "the run"),
                ("key", "VARCHAR", "the stage key"),
                ("processed", "BIGINT", "documents it worked on (tokens for training, pulls for the bandit)"),
                ("bytes", "BIGINT", "bytes it read, where it reads files or texts"),
                ("seconds", "DOUBLE", "wall time"),
                ("peak_mb", "DOUBLE", "the process's peak resident memory so far, MiB"),
                ("flops", "DOUBLE", "model floating-point operations, where a model ran (6ND train, 2ND forward)"),
                ("finished_at", "TIMESTAMP", "when (UTC)"),
            ),
            ("stage", "partition", "run_id"),
            "bookkeeping",
        ),
        Table(
            "stage_keys",
            "Keys of finished stages: a stage whose key is here is skipped.",
            (
                ("stage", "VARCHAR", "the asset"),
                ("partition", "VARCHAR", "its partition, '' without"),
                ("key", "VARCHAR", "digest of inputs, method version and settings"),
                ("output", "VARCHAR", "digest or name of what came out"),
                ("finished_at", "TIMESTAMP", "when (UTC)"),
            ),
            ("stage", "partition", "key"),
            "bookkeeping",
        ),
        Table(
            "judged",
            "Documents that a stage with sparse results has seen.",
            (
                ("stage", "VARCHAR", "the stage"),
                ("version", "VARCHAR", "its version"),
                DOC_ID,
            ),
            ("stage", "version", "doc_id"),
            "bookkeeping",
            document="doc_id",
            internal=True,
        ),
        Table(
            "parts",
            "Live Parquet parts.",
            (
                ("part", "VARCHAR", "digest of its content"),
                ("kind", "VARCHAR", "the table whose rows it holds"),
                ("rows", "BIGINT", "rows"),
                ("bytes", "BIGINT", "size of the file"),
                ("owner", "VARCHAR", "what it belongs to whole: the selection of `decisions`, a manifest's version"),
                ("added_at", "TIMESTAMP", "when (UTC)"),
            ),
            ("part",),
            "bookkeeping",
        ),
        Table(
            "snapshots",
            "The parts that hold the store as it was when a manifest was made: `winnow sql --at` reads them.",
            (
                ("version", "VARCHAR", "the manifest"),
                ("name", "VARCHAR", "the table"),
                ("kind", "VARCHAR", "the folder of the part below `store/parts`"),
                ("part", "VARCHAR", "digest of the part"),
            ),
            ("version", "name", "part"),
            "bookkeeping",
        ),
        Table(
            "meta",
            "Facts about the store itself.",
            (
                (
                    "key",
                    "VARCHAR",
                    "schema_version, schema (digest of tables and columns), generation (of writes), deliveries (so "
                    "far), corpus_digest, data (store.data at the last write), home (published file)",
                ),
                ("value", "VARCHAR", "its value"),
            ),
            ("key",),
            "bookkeeping",
        ),
    )
