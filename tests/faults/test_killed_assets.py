"""kill -9 at any moment of every asset: the store stays whole, and the next run ends where an undisturbed one does."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from forked_runs import ForkServer
from killing import Campaign
from tiny_world import make_tiny_encoder, make_tiny_home, only_when_asked, tiny_config
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


def test_the_steps_that_are_killed_are_all_assets(server: ForkServer) -> None:
    killed = {asset for _, _, assets in server.steps for asset in assets}
    assert killed == {key.to_user_string() for key in definitions.defs.resolve_asset_graph().executable_asset_keys}


@pytest.mark.slow
def test_fifty_kills_in_every_asset_leave_a_whole_store_and_change_nothing(
    server: ForkServer, encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    campaign = Campaign(tmp_path, server, tiny_config(encoder=encoder), SEED)
    campaign.world_of_moments(publishing=("corpus", "manifests"))
    campaign.world_of_random_times()
    with capsys.disabled():
        print(f"\n{campaign.report()}")
    assert campaign.wrong == []
    assert campaign.figures.total >= 50
    assert {step for _, step, _ in server.steps} <= set(campaign.figures.kills)


@pytest.mark.slow
def test_worker_processes_die_with_the_process_that_is_killed(server: ForkServer, tmp_path: Path) -> None:
    several = {"workers": 2, "shard_bytes": 1_000}
    home = make_tiny_home(tmp_path / "home", tiny_config(corpus=several))
    draw = random.Random(SEED)
    job, step, assets = next(found for found in server.steps if found[1] == "corpus")
    how = {"job": job, "assets": assets}
    for wait in (draw.uniform(0.5, 4.0) for _ in range(4)):
        answer = server.run(home.root, **how, during=step, wait=wait, alone=True)
        assert answer.orphans == 0 and not answer.error
        assert problems(home) == []
    assert server.run(home.root, **how).error == ""
    assert problems(home) == []
    assert open_store(home).query("SELECT sum(records), sum(quarantined) FROM shards") == [(46, 2)]


@only_when_asked
def test_thousands_of_kills(
    server: ForkServer, encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    campaign = Campaign(tmp_path, server, tiny_config(encoder=encoder), SEED)
    campaign.worlds_of_each_moment()
    while campaign.figures.total < KILLS and not campaign.wrong:
        campaign.world_of_random_times(kills_a_step=4)
        campaign.world_of_whole_runs(kills=8)
        with capsys.disabled():
            print(f"\n{campaign.report()}", flush=True)
    assert campaign.wrong == []
    assert campaign.figures.total >= KILLS
    assert {step for _, step, _ in server.steps} <= set(campaign.figures.kills)
