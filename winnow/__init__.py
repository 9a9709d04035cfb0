"""Winnow: pretraining-data curation with a metadata store."""
