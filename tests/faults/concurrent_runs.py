"""Several processes that deliver and judge at once: ``python concurrent_runs.py HOME PROCESSES SECONDS``.

Each is forked from a process that has imported what they need, opens the home's Dagster instance by itself, and
executes runs of the ingest job, one after the other, each of a delivery of its own and every other one with the signals
of all that is there. Prints "ready" once all is imported, then what each process did as JSON, a line a process.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from fork_server import PROJECT

NEEDED = (
    "definitions", "resources.runs", "winnow.cli.runs", "winnow.stages.corpus", "winnow.quality.judge", "numba",
    "matplotlib.backends.backend_agg", "dagster._core.storage.event_log.sqlite.sqlite_event_log",
    "dagster._core.storage.runs.sqlite",
)  # fmt: skip
LEAST = 3
"""Runs of each process: without and with signals, and with a file that changes."""
DELIVERY = ("shards", "occurrences", "quarantine", "documents")


def deliver_and_judge(home_root: str, number: int, seconds: float) -> dict[str, Any]:
    """Deliver batch after batch from a folder of one's own until the time is over, at least three."""
    from tiny_world import batch, write_lines

    from resources.runs import burying
    from winnow.cli.runs import Runner
    from winnow.config import load_config
    from winnow.home import Home
    from winnow.text.deliveries import Delivery, scan

    home = Home.from_environment(home_root)
    config = load_config(home.config)
    runner = Runner(home, PROJECT, config)
    definition = runner.defs.resolve_job_def("ingest")
    keys = {key.to_user_string(): key for key in definition.asset_layer.executable_asset_keys}
    end = time.monotonic() + seconds
    done = 0
    errors: list[str] = []
    while (time.monotonic() < end or done < LEAST) and not errors:
        source = f"writer{number}"
        write_lines(home.inbox / source / f"{done}.jsonl", batch(f"{source}-{done}-{seconds}", 10))
        if done % 3 == 2:  # and one that changes
            write_lines(home.inbox / source / "0.jsonl", batch(f"{source}-{done}-changed", 8))
        mine = tuple(file for file in scan(home, config.corpus) if file.source == source)
        delivery = Delivery(mine, (), done)
        delivery.save(home)
        runner.instance.add_dynamic_partitions("shards", [delivery.key])
        wanted = [*DELIVERY, *(["signals"] if done % 2 else [])]
        with burying(runner.instance, home):
            result = definition.execute_in_process(
                instance=runner.instance,
                asset_selection=[keys[name] for name in wanted],
                raise_on_error=False,
                partition_key=delivery.key,
            )
        errors += [str(event.event_specific_data.error) for event in result.all_events if event.is_step_failure]
        if not result.success and not errors:
            errors.append(f"run {result.run_id} failed: {[event.message for event in result.all_events][-3:]}")
        done += 1
    return {"runs": done, "errors": errors}


def make_instance(home_root: str) -> None:
    """Make the home's Dagster instance, which two processes at once cannot; in a process that leaves nothing open."""
    pid = os.fork()
    if pid == 0:
        from winnow.cli.runs import Runner
        from winnow.config import load_config
        from winnow.home import Home

        home = Home.from_environment(home_root)
        Runner(home, PROJECT, load_config(home.config)).instance.get_run_ids(limit=1)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0


def main(home: str, processes: int, seconds: float) -> None:
    sys.path[:0] = [str(PROJECT)]
    for name in NEEDED:
        importlib.import_module(name)
    from dagster._core.execution.plan import instance_concurrency_context

    # A step that waits for its pool asks again after 1 to 15 seconds; here runs shall meet as often as they can.
    instance_concurrency_context._calculate_timeout_interval = lambda interval, count: 0.1
    make_instance(home)
    print("ready", flush=True)
    children = {}
    for number in range(processes):
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                log = os.open(f"{home}.writer{number}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
                os.dup2(log, 2)
                found = deliver_and_judge(home, number, seconds)
            except BaseException:
                found = {"runs": 0, "errors": [traceback.format_exc()[-3000:]]}
            os.write(writing, json.dumps(found).encode()[:60_000])
            os._exit(0)
        os.close(writing)
        children[pid] = reading
    for pid, reading in children.items():
        with os.fdopen(reading) as answer:
            print(answer.read() or json.dumps({"runs": 0, "errors": [f"process {pid} died"]}), flush=True)
        os.waitpid(pid, 0)


if __name__ == "__main__":
    main(str(Path(sys.argv[1])), int(sys.argv[2]), float(sys.argv[3]))
