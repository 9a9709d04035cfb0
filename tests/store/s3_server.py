"""A local S3 server that fails on demand."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.request import Request, urlopen

Answer = Iterable[bytes]
CODES = {403: "InvalidAccessKeyId", 404: "NoSuchBucket", 500: "InternalError", 503: "SlowDown"}


class S3Server:
    """``faults`` are the statuses that the next requests get instead of an answer; ``always`` is one that all get."""

    def __init__(self, inner: Callable[..., Answer]) -> None:
        self.inner = inner
        self.faults: list[int] = []
        self.always: int | None = None
        self.only: str = ""  # the method that faults are for
        self.requests: list[tuple[str, str]] = []
        self.endpoint = ""
        self._lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Answer:
        method = environ["REQUEST_METHOD"]
        with self._lock:
            self.requests.append((method, environ["PATH_INFO"]))
            status = self.always
            if status is None and self.faults and method == (self.only or method):
                status = self.faults.pop(0)
        if status is None:
            return self.inner(environ, start_response)
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        start_response(f"{status} no", [("Content-Type", "application/xml")])
        if method == "HEAD":
            return []
        return [f"<?xml version='1.0'?><Error><Code>{CODES[status]}</Code><Message>no</Message></Error>".encode()]

    def heal(self) -> None:
        self.faults, self.always, self.only = [], None, ""
        self.requests.clear()

    def make_bucket(self, name: str) -> None:
        urlopen(Request(f"{self.endpoint}/{name}", method="PUT")).close()


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """Run moto's S3 on a port of 127.0.0.1."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    faulty = S3Server(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, faulty, threaded=True)
    faulty.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield faulty
    server.shutdown()
    thread.join()
    server.server_close()
