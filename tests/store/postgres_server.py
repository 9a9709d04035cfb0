"""A Postgres cluster of one's own on a Unix socket, as an unprivileged user, for as long as the tests run."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class AbsentError(Exception):
    """Why there is no Postgres here."""


def binaries() -> Path:
    """Return the folder of the newest server's binaries: they are not on Debian's PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    beside = shutil.which("postgres")
    if not found and not beside:
        raise AbsentError("the Postgres server is not installed")
    return (found[-1] if found else Path(str(beside))).parent


def unprivileged() -> dict[str, object]:
    """Return how to start a process as a user that the server accepts: it refuses root."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    raise AbsentError("no unprivileged user to run Postgres as")


@contextmanager
def cluster() -> Iterator[Path]:
    """Run a cluster and return the folder of its socket. Raises :class:`AbsentError` where that is not possible."""
    programs, who = binaries(), unprivileged()
    folder = Path(tempfile.mkdtemp(prefix="winnow-postgres-", dir="/tmp"))  # short enough for a socket's name
    server = None
    try:
        if who:
            os.chown(folder, int(str(who["user"])), int(str(who["group"])))
        data, log = folder / "data", (folder / "log").open("w")
        make = [programs / "initdb", "-D", data, "-U", "winnow", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C"]
        made = subprocess.run(make, capture_output=True, text=True, cwd="/", **who)
        if made.returncode:
            raise AbsentError(f"initdb failed: {made.stderr.strip()}")
        fast = [f"-c{setting}" for setting in ("fsync=off", "full_page_writes=off", "max_connections=60")]
        start = [programs / "postgres", "-D", data, "-k", folder, "-clisten_addresses=", *fast]
        server = subprocess.Popen(start, stdout=log, stderr=log, cwd="/", **who)
        for _ in range(200):
            if subprocess.run([programs / "pg_isready", "-q", "-h", folder]).returncode == 0:
                break
            if server.poll() is not None:
                raise AbsentError(f"Postgres did not start: {(folder / 'log').read_text().strip()}")
            time.sleep(0.05)
        yield folder
    finally:
        if server is not None:
            server.send_signal(signal.SIGQUIT)  # at once: nothing of it is kept
            server.wait()
        shutil.rmtree(folder, ignore_errors=True)


def psql(socket: Path, *statements: str, database: str = "postgres") -> str:
    """Run statements one by one, as a superuser, and return what they print."""
    command = [str(binaries() / "psql"), "-qAtX", "-v", "ON_ERROR_STOP=1", "-h", str(socket), "-U", "winnow", database]
    for statement in statements:
        command += ["-c", statement]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
