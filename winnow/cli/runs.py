"""Commands that run assets: they load the code location of a checkout and execute its jobs in this process."""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from winnow.cli import STAGES
from winnow.cli.arguments import configured
from winnow.cli.preflight import check_before_run
from winnow.cli.summary import print_summary
from winnow.config import Config, load_config, save_config
from winnow.errors import UserError
from winnow.home import Home

ONLY_INGEST = {"corpus", "signals"}
"""Stages that the ingest job completes by itself."""


def demo(options: argparse.Namespace) -> int:
    """Gather the demo corpus and run the whole job on it."""
    from winnow.demo.setup import PLAN, demo_config, gather

    started = time.monotonic()
    home = _home(options)
    if home.config.exists() and load_config(home.config).reference.path != demo_config().reference.path:
        raise UserError(
            f"{home.root} holds a corpus of your own: give the demo another place, WINNOW_HOME=DIR make demo"
        )
    project = _checkout(options)
    gathered = gather(home)
    print(gathered, file=sys.stderr)
    config = load_config(home.config) if home.config.exists() else demo_config()
    save_config(config, home.config)
    runner = Runner(home, project, config)
    from winnow.stages.checkpoints import initial_checkpoint

    code = runner.everything(until=None, checkpoint=initial_checkpoint(config), train=True)
    if code == 0:
        print_summary(home, runner.run_ids, PLAN, time.monotonic() - started)
    return code


def run(options: argparse.Namespace) -> int:
    """Run the job on the user's own files."""
    started = time.monotonic()
    home = _home(options)
    before = load_config(home.config)
    config = configured(before, options)
    project = _checkout(options)
    check_before_run(home, config, options.until, options.checkpoint)
    if config != before or not home.config.exists():
        save_config(config, home.config)
    runner = Runner(home, project, config)
    code = runner.everything(options.until, options.checkpoint, train=not options.no_train)
    if code == 0 and options.until in (None, "mixture"):
        print_summary(home, runner.run_ids, {}, time.monotonic() - started)
    return code


def ui(options: argparse.Namespace) -> int:
    """Serve Dagster's UI and run the sensors until interrupted."""
    home, project = _home(options), _checkout(options)
    load_config(home.config)
    # `dagster dev` advises its successor `dg dev`, which does not know this layout.
    environment = {**os.environ, **_environment(home, project), "PYTHONWARNINGS": "ignore"}
    command = [
        sys.executable, "-m", "dagster", "dev", "-w", "workspace.yaml", "-h", "127.0.0.1", "-p", str(options.port)
    ]  # fmt: skip
    home.inbox.mkdir(parents=True, exist_ok=True)
    print(f"Dagster's UI: http://127.0.0.1:{options.port}   inbox: {home.inbox}   (Ctrl-C ends it)", file=sys.stderr)
    return subprocess.run(command, cwd=project, env=environment, check=False).returncode  # noqa: S603


class Runner:
    """Executes the jobs of the code location in this process, against the home's own Dagster instance."""

    def __init__(self, home: Home, project: Path, config: Config) -> None:
        os.environ.update(_environment(home, project))
        logging.getLogger("dagster").setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", module="dagster")
        sys.path.insert(0, str(project))
        import dagster as dg

        import definitions

        self.home, self.config, self.defs = home, config, definitions.defs
        self.instance = dg.DagsterInstance.get()
        self.run_ids: list[str] = []

    def everything(self, until: str | None, checkpoint: str | None, train: bool) -> int:
        """Deliver what is new, judge it, curate the checkpoint, train: up to the stage ``until``."""
        stages = STAGES[: STAGES.index(until) + 1] if until else STAGES
        self._ingest(stages)
        if set(stages) - ONLY_INGEST:
            name = checkpoint or self._current()
            self.instance.add_dynamic_partitions("checkpoints", [name])
            self._execute("curate", stages, partition_key=name)
            if train and stages == STAGES:
                self._execute("train", stages, partition_key=name)
        return 0

    def _ingest(self, stages: Iterable[str]) -> None:
        """Deliver what waits, a delivery at a time; without any, go on with what an earlier run left unfinished.

        Raises :class:`UserError` at the end when files were refused: all others are in.
        """
        from winnow.stages.corpus import known_shards
        from winnow.store import Store
        from winnow.text.deliveries import plan, scan

        store = Store(self.home, self.config.store)
        files = scan(self.home, self.config.corpus)
        delivered = False
        while True:
            with store.read() as connection:
                known = known_shards(connection, self.config.corpus)
            delivery = plan(files, known, most_bytes=self.config.corpus.delivery_bytes)
            tried = all(known.refused.get(file.shard) == file.fingerprint for file in delivery.files)
            if not delivery or (delivered and tried and not delivery.withdrawn):
                break
            delivery.save(self.home)
            self.instance.add_dynamic_partitions("shards", [delivery.key])
            self._execute("ingest", stages, partition_key=delivery.key)
            delivered = True
        if not delivered and (last := store.query("SELECT batch FROM shards ORDER BY delivered_at DESC LIMIT 1")):
            self.instance.add_dynamic_partitions("shards", [last[0][0]])  # unless Dagster's own home is a new one
            self._execute("ingest", stages, partition_key=last[0][0])
        refused = [reason for (reason,) in store.query("SELECT reason FROM refused ORDER BY shard")]
        if refused:
            raise UserError(
                f"files left as they were: {len(refused)}; everything else is in. {'; '.join(refused[:5])}"
                + (" ..." if len(refused) > 5 else "")
            )

    def _current(self) -> str:
        from winnow.stages.checkpoints import current_checkpoint
        from winnow.store import Store

        with Store(self.home, self.config.store).read() as connection:
            return current_checkpoint(connection, self.config)

    def _execute(self, job: str, stages: Iterable[str], **how: Any) -> None:
        from resources.runs import burying
        from winnow.store import Store

        definition = self.defs.resolve_job_def(job)
        graph = self.defs.resolve_asset_graph()
        wanted = [
            key for key in definition.asset_layer.executable_asset_keys if graph.get(key).group_name in set(stages)
        ]
        if not wanted:
            return
        with burying(self.instance, self.home):  # a run that was killed keeps its place in the pool
            result = definition.execute_in_process(
                instance=self.instance, asset_selection=wanted, raise_on_error=False, **how
            )
        self.run_ids.append(result.run_id)
        failures = [event for event in result.all_events if event.is_step_failure]
        if failures:
            raise _failed_check(result) or _failure(failures[0])
        if not result.success:
            raise UserError(f"run {result.run_id} of job {job} failed: see `winnow ui`")
        Store(self.home, self.config.store).publish()  # Dagster only logs what a resource raises at the end of a run


def _failed_check(result: Any) -> UserError | None:
    """Return what a blocking check that failed has to say to the user, if one did."""
    for found in result.get_asset_check_evaluations():
        if found.blocking and not found.passed and found.description:
            return UserError(found.description)
    return None


def _failure(event: Any) -> Exception:
    """Return a failed step's error: the user's mistake as it was raised, anything else with its place."""
    error = event.event_specific_data.error
    while error.cause is not None:
        error = error.cause
    message = error.message.strip()
    if error.cls_name == "UserError":
        return UserError(message.split(":", 1)[1].strip() if ":" in message else message)
    return RuntimeError(f"stage {event.step_key} failed: {message}\n{''.join(error.stack[-3:])}")


def _home(options: argparse.Namespace) -> Home:
    return Home.from_environment(options.home)


def _checkout(options: argparse.Namespace) -> Path:
    """Return the checkout: named, else the present folder, else where this package lies. Raises :class:`UserError`."""
    candidates = [Path(options.project)] if options.project else [Path.cwd(), Path(__file__).parents[2]]
    for folder in candidates:
        if (folder / "definitions.py").is_file() and (folder / "workspace.yaml").is_file():
            return folder.resolve()
    raise UserError(f"{candidates[0]} is no Winnow checkout (no definitions.py): run there, or give --project DIR")


def _environment(home: Home, project: Path) -> dict[str, str]:
    """Return the variables of a run; makes Dagster's home with the project's settings."""
    home.dagster.mkdir(parents=True, exist_ok=True)
    settings = home.dagster / "dagster.yaml"
    if not settings.exists() or settings.read_text() != (project / "dagster.yaml").read_text():
        shutil.copyfile(project / "dagster.yaml", settings)
    return {
        "WINNOW_HOME": str(home.root),
        "DAGSTER_HOME": str(home.dagster),
        "DAGSTER_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "true",
        # Idle threads must sleep: spinning ones halve everything when the machine has other work.
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
    }
