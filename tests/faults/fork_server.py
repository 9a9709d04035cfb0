"""A process that has imported everything and forks a child for each run, which it kills when and where it is told.

``python fork_server.py`` reads a request a line from standard input and writes an answer a line: JSON. It starts no
thread, opens no database and runs no model, so that its children begin as a fresh process would, without ten seconds of
imports. Each child leads a process group of its own, and the whole group is killed.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[2]
HEAVY = (
    "torch", "transformers", "sentence_transformers", "safetensors.torch", "safetensors.numpy", "numba", "datasketch",
    "faiss", "sklearn.linear_model", "sklearn.feature_extraction.text", "polars", "pyarrow.dataset",
    "matplotlib.pyplot", "matplotlib.backends.backend_agg", "transformers.models.llama.modeling_llama",
    "dagster._core.storage.event_log.sqlite.sqlite_event_log", "dagster._core.storage.runs.sqlite",
)  # fmt: skip


@dataclass(frozen=True)
class Request:
    """A run of ``job`` on ``home`` for the assets named (all stages of all jobs when ``job`` is empty).

    ``during`` names the step in which to kill: ``planning`` before the first, ``publish`` after the last. ``wait``:
    kill so many seconds after it began. ``moment`` (name, n, ``before`` or ``after``): kill at its n-th durable moment
    of that name, or of any without a name (1-based, see :func:`watch_durable_moments`). ``alone``: kill the main
    process and not its whole group, as the memory killer does; a moment always does. ``limit``: a run that takes
    longer hangs.
    """

    home: str
    job: str = ""
    assets: tuple[str, ...] = ()
    during: str = ""
    wait: float | None = None
    moment: tuple[str, int, str] | None = None
    alone: bool = False
    limit: float = 240.0


@dataclass
class Answer:
    """What became of a run: ``at`` is the step that was being computed at the end, ``planning`` or ``publish``.

    ``steps`` are the seconds that each took, ``moments`` the durable moments that went by in each, ``orphans`` how many
    processes outlived a main process that was killed alone.
    """

    killed: bool = False
    hung: bool = False
    at: str = "planning"
    seconds: float = 0.0
    steps: dict[str, float] = field(default_factory=dict)
    moments: dict[str, list[str]] = field(default_factory=dict)
    error: str = ""
    orphans: int = 0


def import_everything() -> None:
    """Import the code location, the library and what its functions import when they are called."""
    import warnings

    warnings.filterwarnings("ignore")
    import definitions
    import winnow

    for module in pkgutil.walk_packages(winnow.__path__, "winnow."):
        if not module.name.endswith(("__main__", ".demo.environment")):
            importlib.import_module(module.name)
    for name in HEAVY:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    for job in definitions.JOBS:
        definitions.defs.resolve_job_def(job.name)
    from winnow import plots

    plots._png = lambda figure: b""  # pictures of what a run did lie nowhere in a home
    gc.collect()
    gc.freeze()  # the children need not look through all that again


def plan() -> list[tuple[str, str, list[str]]]:
    """Return (job, step, assets) of every step of the code location, in the order in which they run."""
    import definitions

    graph = definitions.defs.resolve_asset_graph()
    order = {key: place for place, key in enumerate(graph.toposorted_asset_keys)}
    steps: list[tuple[str, str, list[str]]] = []
    for job in ("ingest", "curate", "train"):
        layer = definitions.defs.resolve_job_def(job).asset_layer
        grouped: dict[str, list[Any]] = {}
        for key in sorted(layer.executable_asset_keys, key=lambda key: order[key]):
            grouped.setdefault(graph.get(key).assets_def.op.name, []).append(key)
        # A step of several assets runs once everything before the last of them has run.
        for step, keys in sorted(grouped.items(), key=lambda found: max(order[key] for key in found[1])):
            steps.append((job, step, [key.to_user_string() for key in keys]))
    return steps


# -- in the child -----------------------------------------------------------------------------------------------------


class Steps:
    """Tells which step is being computed: ``planning`` before the first, ``publish`` between and after them."""

    def __init__(self, say: Callable[[str], None]) -> None:
        import dagster as dg

        self.now = "planning"
        original = dg.DagsterInstance.handle_new_event

        def handle(instance: Any, event: Any, **keywords: Any) -> None:
            original(instance, event, **keywords)
            inner = event.dagster_event
            if inner is not None and inner.is_step_start:
                self.now = inner.step_key
            elif inner is not None and (inner.is_step_success or inner.is_step_failure):
                self.now = "publish"
            else:
                return
            say(f"at {self.now}")

        dg.DagsterInstance.handle_new_event = handle  # type: ignore[method-assign]


def watch_durable_moments(home: Path, say: Callable[[str], None], steps: Steps, request: Request) -> None:
    """Tell every rename below ``home``, every COMMIT and CHECKPOINT, and die at the one that is asked for."""
    import duckdb

    seen = [0]

    def watched(original: Callable[..., Any], name: str, *arguments: Any, **keywords: Any) -> Any:
        hit = False
        if request.moment and steps.now == request.during and request.moment[0] in ("", name):
            seen[0] += 1
            hit = seen[0] == request.moment[1]
        if hit and request.moment[2] == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*arguments, **keywords)
        say(f"moment {name}")
        if hit:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    def rename(original: Callable[..., Any]) -> Callable[..., Any]:
        def renamed(source: Any, target: Any, **keywords: Any) -> Any:
            place = Path(os.fsdecode(target))
            if not place.is_relative_to(home) or place.is_relative_to(home / "dagster"):
                return original(source, target, **keywords)
            folder = place.relative_to(home).parent.as_posix()
            return watched(original, f"rename into {folder}", source, target, **keywords)

        return renamed

    os.replace, os.rename = rename(os.replace), rename(os.rename)
    execute = duckdb.DuckDBPyConnection.execute

    def executed(connection: Any, query: Any, *arguments: Any, **keywords: Any) -> Any:
        if isinstance(query, str) and query.strip().upper() in ("COMMIT", "CHECKPOINT"):
            return watched(execute, query.strip().upper(), connection, query, *arguments, **keywords)
        return execute(connection, query, *arguments, **keywords)

    duckdb.DuckDBPyConnection.execute = executed


def work(request: Request, say: Callable[[str], None]) -> None:
    """Run what is asked as ``winnow run`` does: plan a delivery, then the jobs; one of them, where one is named."""
    from resources.runs import burying
    from winnow.cli.runs import Runner
    from winnow.config import load_config
    from winnow.home import Home

    class Chosen(Runner):
        def _ingest(self, stages: Any) -> None:
            if request.job in ("", "ingest"):
                super()._ingest(stages)

        def _execute(self, job: str, stages: Any, **how: Any) -> None:
            if not request.job:
                super()._execute(job, stages, **how)
            elif job == request.job:
                layer = self.defs.resolve_job_def(job).asset_layer
                wanted = [key for key in layer.executable_asset_keys if key.to_user_string() in request.assets]
                with burying(self.instance, self.home):
                    result = self.defs.resolve_job_def(job).execute_in_process(
                        instance=self.instance, asset_selection=wanted, raise_on_error=False, **how
                    )
                for event in result.all_events:
                    if event.is_step_failure:
                        raise RuntimeError(str(event.event_specific_data.error))

    home = Home.from_environment(request.home)
    watch_durable_moments(home.root, say, Steps(say), request)
    Chosen(home, PROJECT, load_config(home.config)).everything(None, None, True)


def child(request: Request, pipe: int) -> None:
    """Do the work in a process group of its own and end, whatever happens."""

    def say(what: str) -> None:
        os.write(pipe, (json.dumps(what) + "\n").encode())  # under PIPE_BUF: a line arrives whole

    try:
        os.setsid()
        log = os.open(Path(request.home).with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(log, 1)
        os.dup2(log, 2)
        work(request, say)
        say("end ")
    except BaseException:
        traceback.print_exc()
        say("end " + traceback.format_exc()[-3000:])
    finally:
        os._exit(0)


# -- in the server ----------------------------------------------------------------------------------------------------


def run(request: Request) -> Answer:
    """Fork a child for the request, watch it, and kill it when its time has come."""
    reading, writing = os.pipe()
    began = time.monotonic()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        child(request, writing)
    os.close(writing)
    answer = Answer()
    entered: float = began
    handle = os.pidfd_open(pid)
    pending = b""
    sources = [reading, handle]
    alive = True
    while alive:
        deadline = began + request.limit
        if request.wait is not None and answer.at == request.during:
            deadline = min(deadline, entered + request.wait)
        ready = select.select(sources, [], [], max(0.0, deadline - time.monotonic()))[0]
        if reading in ready:
            data = os.read(reading, 1 << 16)
            if not data:
                sources.remove(reading)
            pending += data
            *lines, pending = pending.split(b"\n")
            for line in lines:
                word, _, rest = json.loads(line).partition(" ")
                if word == "at":
                    now = time.monotonic()
                    answer.steps[answer.at] = answer.steps.get(answer.at, 0.0) + now - entered
                    answer.at, entered = rest, now
                elif word == "moment":
                    answer.moments.setdefault(answer.at, []).append(rest)
                elif word == "end":
                    answer.error = rest
        elif handle in ready:
            alive = False
        elif not ready:
            answer.hung = deadline == began + request.limit
            (os.kill if request.alone and not answer.hung else os.killpg)(pid, signal.SIGKILL)
            alive = False
    ended = time.monotonic()
    if os.WIFSIGNALED(os.waitpid(pid, 0)[1]):
        answer.killed = True
        answer.orphans = _orphans(pid)
    os.close(handle)
    os.close(reading)
    answer.steps[answer.at] = answer.steps.get(answer.at, 0.0) + ended - entered
    answer.seconds = ended - began
    return answer


def _orphans(group: int) -> int:
    """Return how many processes of a group live on although they had time to see that their parent is dead."""
    for _ in range(60):
        members = _members(group)
        if not members:
            return 0
        time.sleep(0.05)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
    return len(members)


def _members(group: int) -> list[int]:
    found = []
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            with contextlib.suppress(OSError):
                state, _, of_group = place.joinpath("stat").read_text().rpartition(")")[2].split()[:3]
                if int(of_group) == group and state != "Z":
                    found.append(int(place.name))
    return found


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever prints must not speak in the answers
    sys.path[:0] = [str(PROJECT)]
    import_everything()
    print(json.dumps(plan()), file=answers)
    for line in sys.stdin:
        raw = json.loads(line)
        raw["assets"] = tuple(raw["assets"])
        raw["moment"] = tuple(raw["moment"]) if raw["moment"] else None
        print(json.dumps(asdict(run(Request(**raw)))), file=answers)


if __name__ == "__main__":
    main()
