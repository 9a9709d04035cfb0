"""The two dynamic partition dimensions of the code location."""

import dagster as dg

SHARDS = dg.DynamicPartitionsDefinition(name="shards")
"""A partition is a batch of delivered files (see ``winnow.text.deliveries.Delivery``), never a single document."""

CHECKPOINTS = dg.DynamicPartitionsDefinition(name="checkpoints")
"""A partition is a state of the model in training: the name of its folder below ``WINNOW_HOME/checkpoints``."""
