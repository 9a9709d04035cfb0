"""WITH WHAT: thin Dagster wrappers of the store, the configuration, the encoder and the reports."""
