"""The code location: what is computed, when, with what."""

import dagster as dg

from assets import (
    attribution,
    checks,
    contamination,
    corpus,
    duplicates,
    embeddings,
    influence,
    lab,
    mixture,
    model,
    selection,
    signals,
)
from resources.console import progress
from resources.workspace import Workspace
from sensors.checkpoints import checkpoint_folders
from sensors.curation import curation
from sensors.inbox import inbox
from sensors.jobs import JOBS

STAGES = (
    corpus,
    signals,
    duplicates,
    contamination,
    embeddings,
    model,
    influence,
    selection,
    mixture,
    attribution,
    lab,
)

assets = dg.load_assets_from_modules(STAGES)

defs = dg.Definitions(
    assets=assets,
    asset_checks=dg.load_asset_checks_from_modules([checks]),
    jobs=JOBS,
    sensors=[inbox, checkpoint_folders, curation],
    resources={"workspace": Workspace()},
    executor=dg.in_process_executor,
    loggers={"progress": progress},
)
