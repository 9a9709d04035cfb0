"""Tables of the lab: trainings of one model a preset, and what they say of the presets."""

from __future__ import annotations

from winnow.store.schema.table import Table


def lab() -> tuple[Table, ...]:
    """Return these tables."""
    return (
        Table(
            "lab_runs",
            "One model trained on what a preset chose, from the lab's checkpoint.",
            (
                ("run", "VARCHAR", "digest of all that the training depends on"),
                ("lab", "VARCHAR", "digest of pool, references, models and settings"),
                ("preset", "VARCHAR", "the selection's preset"),
                ("reference", "VARCHAR", "whose selecting part it read, and whose judging part it is judged by"),
                ("model", "VARCHAR", "the model size by name"),
                ("parameters", "BIGINT", "of the model"),
                ("seed", "BIGINT", "of choice and order"),
                ("documents", "BIGINT", "distinct documents chosen"),
                ("tokens", "BIGINT", "read in training, after the warm-up"),
                ("loss", "DOUBLE", "judging loss at the end, nats a token"),
                ("training_flops", "DOUBLE", "6 a parameter and token"),
                ("scoring_flops", "DOUBLE", "what choosing spent in passes of models and encoder"),
                ("scoring_seconds", "DOUBLE", "what choosing took"),
                ("pulls", "BIGINT", "of the bandit"),
                ("trained_at", "TIMESTAMP", "when it was written (UTC)"),
            ),
            ("run",),
            "lab",
        ),
        Table(
            "lab_curves",
            "Losses of the lab's models over training.",
            (
                ("run", "VARCHAR", "the training, as in lab_runs"),
                ("tokens", "BIGINT", "read so far, after the warm-up"),
                ("measured", "VARCHAR", "a reference, or source:NAME for held-out documents of a source"),
                ("loss", "DOUBLE", "nats a token"),
            ),
            ("run", "tokens", "measured"),
            "lab",
        ),
        Table(
            "lab_results",
            "A preset against random documents, over seeds.",
            (
                ("lab", "VARCHAR", "digest of pool, references, models and settings"),
                ("preset", "VARCHAR", "the selection's preset; with reference, seed and model where it failed"),
                ("reference", "VARCHAR", "what it is judged by"),
                ("model", "VARCHAR", "the model size by name"),
                ("seeds", "BIGINT", "trainings averaged"),
                ("loss", "DOUBLE", "mean judging loss at the end, nats a token"),
                ("error", "DOUBLE", "its standard error; null for one seed"),
                ("difference", "DOUBLE", "mean difference of the items' losses from random's; negative = better"),
                ("difference_low", "DOUBLE", "lower end of its 95% interval over items and seeds"),
                ("difference_high", "DOUBLE", "upper end"),
                ("out", "DOUBLE", "mean difference of the losses out of domain from random's; negative = better"),
                ("tokens", "DOUBLE", "share of random's tokens at which it has random's final loss; null = never"),
                ("tokens_low", "DOUBLE", "lower end of its 95% interval over seeds; null = never, or one seed"),
                ("tokens_high", "DOUBLE", "upper end"),
                ("flops", "DOUBLE", "the same in operations of training; null = never"),
                ("scored_flops", "DOUBLE", "the same with the cost of choosing; null = never"),
                ("scoring_flops", "DOUBLE", "what choosing spent in all"),
                ("seconds", "DOUBLE", "what choosing took"),
                ("failed", "VARCHAR", "why there is no training; null where there is one"),
                ("measured_at", "TIMESTAMP", "when (UTC)"),
            ),
            ("lab", "preset", "reference", "model"),
            "lab",
        ),
    )
