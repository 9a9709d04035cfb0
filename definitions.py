"""The code location: what is computed, when, with what."""

import dagster as dg

from assets import checks, contamination, corpus, duplicates, embeddings, influence, mixture, model, selection, signals
from resources.console import progress
from resources.workspace import Workspace
from sensors.checkpoints import checkpoint_folders
from sensors.curation import curation
from sensors.inbox import inbox

STAGES = (corpus, signals, duplicates, contamination, embeddings, model, influence, selection, mixture)

assets = dg.load_assets_from_modules(STAGES)

of_shards = dg.AssetSelection.assets(
    "shards", "occurrences", "quarantine", "documents", "signals", "sketches", "bands", "embeddings"
)
training = dg.AssetSelection.assets("train_stage", "validations")
console: dict[str, dict[str, dict[str, dict[str, str]]]] = {"loggers": {"progress": {"config": {}}}}

defs = dg.Definitions(
    assets=assets,
    asset_checks=dg.load_asset_checks_from_modules([checks]),
    jobs=[
        dg.define_asset_job("ingest", of_shards, config=console, description="Read a delivery; judge its documents."),
        dg.define_asset_job(
            "curate",
            dg.AssetSelection.all() - of_shards - training,
            config=console,
            description="From judged documents to a manifest, for one checkpoint.",
        ),
        dg.define_asset_job(
            "register", dg.AssetSelection.assets("checkpoints"), config=console, description="Register a checkpoint."
        ),
        dg.define_asset_job("train", training, config=console, description="Train on a manifest; compare with random."),
    ],
    sensors=[inbox, checkpoint_folders, curation],
    resources={"workspace": Workspace()},
    executor=dg.in_process_executor,
    loggers={"progress": progress},
)
