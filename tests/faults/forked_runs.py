"""The tests' side of the fork server: ask for runs, get what became of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from fork_server import PROJECT, Answer, Request


class ForkServer:
    """A fork server in a process of its own; ``steps`` are (job, step, assets) of the code location, in order."""

    def __init__(self) -> None:
        one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        command = [sys.executable, str(Path(__file__).with_name("fork_server.py"))]
        self._server = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=PROJECT,
            env={**os.environ, **one_thread, "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": str(PROJECT)},
        )  # fmt: skip
        self.steps: list[tuple[str, str, list[str]]] = [tuple(step) for step in self._answer()]

    def run(self, home: Path, **how: Any) -> Answer:
        """Run on a home; see :class:`fork_server.Request`."""
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(asdict(Request(str(home), **how))) + "\n")
        self._server.stdin.flush()
        return Answer(**self._answer())

    def _answer(self) -> Any:
        assert self._server.stdout is not None
        line = self._server.stdout.readline()
        assert line, "the fork server is gone"
        return json.loads(line)

    def __enter__(self) -> ForkServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait(10)
