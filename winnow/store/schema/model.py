"""Tables of the model in training: tokens, checkpoints, probes, influence models, scores."""

from __future__ import annotations

from winnow.store.schema.table import DOC_ID, Table


def model() -> tuple[Table, ...]:
    """Return these tables in the order in which a document travels."""
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
