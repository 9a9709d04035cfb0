"""No room on the disk: a sentence with the place and the mend, nothing half written, and afterwards all goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fork_server import PROJECT

SCENES = ("the very first write", "a delivery", "a publish", "another publish", "a manifest")
SCRIPT = [sys.executable, str(Path(__file__).with_name("disk_scenes.py"))]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT)}


def played(command: list[str]) -> dict[str, Any]:
    done = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT, env=ENVIRONMENT, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def mends(found: dict[str, Any]) -> None:
    assert found["wrong"] == []
    assert tuple(found["failures"]) == SCENES
    for scene, failures in found["failures"].items():
        assert failures, f"{scene} never failed"
        assert all("no space left while" in failure and "Free some space" in failure for failure in failures), failures


def test_files_that_may_not_grow_leave_a_whole_store(tmp_path: Path) -> None:
    mends(played([*SCRIPT, str(tmp_path), "limit"]))


def test_a_full_disk_leaves_a_whole_store(tmp_path: Path) -> None:
    mounted = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o size=40m none "$0" && exec "$@"']
    if subprocess.run([*mounted, str(tmp_path), "true"], capture_output=True, check=False).returncode:
        pytest.skip("no tmpfs can be mounted here in a namespace of one's own (it takes root or user namespaces)")
    mends(played([*mounted, str(tmp_path), *SCRIPT, str(tmp_path), "ballast"]))
