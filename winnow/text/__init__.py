"""Delivered files to documents: formats, records, quarantine."""

from winnow.text.batches import DOCUMENTS
from winnow.text.formats import format_of
from winnow.text.locations import discover
from winnow.text.quarantine import Quarantined, Reason
from winnow.text.readers import Batch, Limits, ShardReader, read_batches
from winnow.text.records import FieldMap

__all__ = [
    "DOCUMENTS",
    "Batch",
    "FieldMap",
    "Limits",
    "Quarantined",
    "Reason",
    "ShardReader",
    "discover",
    "format_of",
    "read_batches",
]
