"""The code location: it loads, it is light, and its names are those of the store."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
from worlds import FITTED, SUPPORTING

import definitions
from winnow.store.schema import tables

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "numba", "faiss", "transformers", "sentence_transformers", "datasketch", "sklearn", "matplotlib")


def asset_groups() -> dict[str, str]:
    graph = definitions.defs.resolve_asset_graph()
    return {key.to_user_string(): graph.get(key).group_name for key in graph.get_all_asset_keys()}


def test_the_code_location_is_loadable() -> None:
    dg.Definitions.validate_loadable(definitions.defs)
    assert {job.name for job in definitions.defs.jobs or ()} == {
        "ingest",
        "curate",
        "register",
        "train",
        "validate_attribution",
        "lab",
    }
    assert {sensor.name for sensor in definitions.defs.sensors or ()} == {"inbox", "checkpoint_folders", "curation"}


@pytest.mark.parametrize("module", ["definitions", "winnow.cli", "winnow.cli.runs", "winnow.cli.read"])
def test_importing_brings_in_no_heavy_library(module: str) -> None:
    code = f"import {module}, sys; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


def test_the_library_imports_no_dagster() -> None:
    code = (
        "import pkgutil, importlib, sys, winnow\n"
        "for found in pkgutil.walk_packages(winnow.__path__, 'winnow.'):\n"
        "    if not found.name.rpartition('.')[2].startswith('_'):\n"
        "        importlib.import_module(found.name)\n"
        "print(*[name for name in sys.modules if name.partition('.')[0] == 'dagster'][:3])"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


def test_a_group_is_a_file_of_the_assets_folder() -> None:
    files = {path.stem for path in (ROOT / "assets").glob("*.py")} - {"__init__", "checks"}
    assert set(asset_groups().values()) == files


def test_an_asset_has_the_name_and_the_stage_of_its_table() -> None:
    for name, group in asset_groups().items():
        if name not in FITTED:
            assert name in tables(), f"asset {name} has no table"
            assert tables()[name].stage == group, name


def test_every_table_is_made_by_an_asset_or_listed_as_bookkeeping() -> None:
    made = set(asset_groups()) | SUPPORTING
    assert {name for name, table in tables().items() if name not in made and table.stage != "bookkeeping"} == set()
    assert {tables()[name].stage for name in SUPPORTING} <= set(asset_groups().values())


def test_the_jobs_leave_no_asset_out() -> None:
    covered = {
        key.to_user_string()
        for name in ("ingest", "curate", "train", "validate_attribution", "lab")
        for key in definitions.defs.resolve_job_def(name).asset_layer.executable_asset_keys
    }
    assert covered == set(asset_groups())


def test_every_asset_says_what_it_is_and_waits_for_the_store() -> None:
    for asset in definitions.assets:
        assert isinstance(asset, dg.AssetsDefinition)
        assert asset.op.pool == "store"
        for spec in asset.specs:
            assert spec.description, spec.key
