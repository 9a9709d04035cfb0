"""WITH WHAT: thin Dagster wrappers of the store, the configuration, the encoder and the reports."""

import warnings

import dagster as dg

# BackfillPolicy is marked beta; one run over many shard partitions is what the design rests on (docs/triggers.md).
warnings.filterwarnings("ignore", category=dg.BetaWarning)
