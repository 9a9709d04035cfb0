"""kill -9 at any moment of every asset: the store stays whole, and the next run ends where an undisturbed one does."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from forked_runs import ForkServer
from killing import Campaign
from tiny_world import ASKED, make_tiny_encoder, make_tiny_home, only_when_asked, tiny_config
from wholeness import problems

import definitions
from winnow.store.store import open_store

SEED = int(os.environ.get("WINNOW_FAULT_SEED", "3"))
KILLS = int(os.environ.get("WINNOW_FAULT_KILLS", "2000"))


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    with ForkServer() as forks:
        yield forks


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_encoder(tmp_path_factory.mktemp("encoder") / "tiny")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: a killed process loses nothing there, and nobody waits for disks."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def test_the_steps_that_are_killed_are_all_assets(server: ForkServer) -> None:
    killed = {asset for _, _, assets in server.steps for asset in assets}
    every = {key.to_user_string() for key in definitions.defs.resolve_asset_graph().executable_asset_keys}
    # Of no job here; what these train grows by whole files: test_bank.py, test_lab_runs.py.
    assert killed == every - {"attribution_bench", "lab_runs", "lab_results"}


@pytest.mark.slow
def test_a_kill_in_every_asset_and_in_the_publishing_leaves_a_whole_store_and_changes_nothing(
    server: ForkServer, encoder: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    campaign = Campaign(place, server, tiny_config(encoder=encoder), SEED)
    campaign.world_of_first_moments(publishing=("corpus",))
    with capsys.disabled():
        print(f"\n{campaign.report()}")
    assert campaign.wrong == []
    assert {step for _, step, _ in server.steps} | {"publish"} <= set(campaign.figures.kills)


@pytest.mark.slow
def test_worker_processes_die_with_the_process_that_is_killed(server: ForkServer, tmp_path: Path) -> None:
    several = {"workers": 2, "shard_bytes": 1_000}
    home = make_tiny_home(tmp_path / "home", tiny_config(corpus=several))
    draw = random.Random(SEED)
    job, step, assets = next(found for found in server.steps if found[1] == "corpus")
    how = {"job": job, "assets": assets}
    kills = 0
    for wait in (0.3, 0.7, *(draw.uniform(0.5, 4.0) for _ in range(20 if ASKED else 1))):
        answer = server.run(home.root, **how, during=step, wait=wait, alone=True)
        kills += answer.killed
        assert answer.orphans == 0 and not answer.error
        assert problems(home) == []
    assert kills
    assert server.run(home.root, **how).error == ""
    assert problems(home) == []
    assert open_store(home).query("SELECT sum(records), sum(quarantined) FROM shards") == [(46, 2)]


@only_when_asked
@pytest.mark.parametrize(("backend", "share"), [("file", 0.9), ("lake", 0.1)])
def test_thousands_of_kills(
    server: ForkServer, encoder: Path, place: Path, capsys: pytest.CaptureFixture[str], backend: str, share: float
) -> None:
    campaign = Campaign(place, server, tiny_config(backend, encoder), SEED)

    def goes_on() -> bool:
        with capsys.disabled():
            print(f"\n{campaign.report()}", flush=True)
        return campaign.figures.total < KILLS * share and not campaign.wrong

    campaign.world_of_moments(publishing=("corpus", "embeddings", "decisions", "manifests"))
    for _ in campaign.every_moment() if backend == "file" else ():
        if not goes_on():
            break
    while goes_on():
        campaign.world_of_random_times(kills_a_step=4)
        campaign.world_of_whole_runs(kills=8)
    assert campaign.wrong == []
    assert campaign.figures.total >= KILLS * share
    assert {step for _, step, _ in server.steps} <= set(campaign.figures.kills)
