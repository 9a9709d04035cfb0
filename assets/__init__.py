"""WHAT is computed: one file a stage, one Dagster group, one box in the UI. No algorithm lives here."""
