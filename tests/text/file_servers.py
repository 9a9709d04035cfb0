"""Servers that misbehave on demand: a web site, a proxy before another server, imitations of two stores' interfaces."""

from __future__ import annotations

import hashlib
import http.client
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit


class Asked(NamedTuple):
    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes = b""


@dataclass
class Faults:
    """What goes wrong: ``next`` is used up by the requests that ``at`` is true of, ``always`` is not.

    ``500`` (or another status) answers so; ``cut`` sends half of the body, ``reset`` nothing, and drops the connection.
    """

    next: list[str] = field(default_factory=list)
    always: str = ""
    at: Callable[[Asked], bool] = lambda asked: True
    asked: list[Asked] = field(default_factory=list)

    def of(self, asked: Asked) -> str:
        self.asked.append(asked)
        if not self.at(asked):
            return ""
        return self.always or (self.next.pop(0) if self.next else "")


@contextmanager
def serve(answer: Callable[[Asked], Reply], faults: Faults) -> Iterator[str]:
    """Serve on a free port of this machine and give the address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _do(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked = Asked(self.command, self.path, dict(self.headers.items()), body)
            fault = faults.of(asked)
            if fault == "reset":
                self._drop()
                return
            reply = Reply(int(fault), {}, b"out of order") if fault.isdigit() else answer(asked)
            self.send_response(reply.status)
            headers = dict(reply.headers)
            if "Transfer-Encoding" not in headers:
                headers.setdefault("Content-Length", str(len(reply.body)))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                try:
                    self.wfile.write(reply.body[: len(reply.body) // 2] if fault == "cut" else reply.body)
                except OSError:
                    return
            if fault == "cut":
                self._drop()

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _do  # noqa: N815 - the base class's

        def _drop(self) -> None:
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

        def log_message(self, *what: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass
class Site:
    """Files by path, and what the server tells of them and is able to do."""

    files: dict[str, bytes]
    ranges: bool = True
    etag: bool = True
    modified: str = "Wed, 21 Oct 2015 07:28:00 GMT"
    length: bool = True

    def __call__(self, asked: Asked) -> Reply:
        data = self.files.get(unquote(urlsplit(asked.path).path))
        if data is None:
            return Reply(404, {})
        headers = {"ETag": f'"{hash(data):x}"'} if self.etag else {}
        headers |= {"Last-Modified": self.modified} if self.modified else {}
        wanted = asked.headers.get("Range")
        if wanted and self.ranges:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, stop = int(first), min(int(last) + 1 if last else len(data), len(data))
            if start >= len(data):
                return Reply(416, {**headers, "Content-Range": f"bytes */{len(data)}"})
            span = {"Content-Range": f"bytes {start}-{stop - 1}/{len(data)}"}
            return Reply(206, {**headers, **span}, data[start:stop])
        if not self.length:
            chunk = b"%x\r\n%s\r\n" % (len(data), data) if data else b""
            return Reply(200, {**headers, "Transfer-Encoding": "chunked"}, chunk + b"0\r\n\r\n")
        return Reply(200, headers, data)


def proxy(address: str) -> Callable[[Asked], Reply]:
    """Pass requests on to another server of this machine."""
    there = urlsplit(address)

    def answer(asked: Asked) -> Reply:
        connection = http.client.HTTPConnection(there.hostname or "", there.port, timeout=10)
        headers = {name: value for name, value in asked.headers.items() if name.lower() != "host"}
        connection.request(asked.method, asked.path, asked.body or None, headers)
        response = connection.getresponse()
        body = response.read()
        kept = {
            name: value
            for name, value in response.getheaders()
            if name.lower() not in ("connection", "transfer-encoding", "server", "date")
        }
        connection.close()
        return Reply(response.status, kept, body)

    return answer


def _json(value: object, status: int = 200, **headers: str) -> Reply:
    return Reply(status, {"Content-Type": "application/json", **headers}, json.dumps(value).encode())


@dataclass
class Hub:
    """What the Hugging Face Hub's API answers of the dataset ``owner/name``, as far as its own client asks."""

    files: dict[str, bytes]

    def __call__(self, asked: Asked) -> Reply:
        path = unquote(urlsplit(asked.path).path)
        _, found, rest = path.partition("/datasets/owner/name")
        if not found:
            return _json({"error": "Repository not found"}, 404, **{"X-Error-Code": "RepoNotFound"})
        verb, _, rest = rest.strip("/").partition("/")
        inside = rest.partition("/")[2]
        if verb == "tree":
            below = [self._entry(name) for name in sorted(self.files) if name.startswith(inside)]
            return _json(below) if below else _json({}, 404, **{"X-Error-Code": "EntryNotFound"})
        if verb == "paths-info":
            names = parse_qs(asked.body.decode())["paths"]
            return _json([self._entry(name) for name in names if name in self.files])
        if verb == "resolve":
            headers = {name.title(): value for name, value in asked.headers.items()}
            return Site({"/": self.files[inside]})(asked._replace(path="/", headers=headers))
        return _json({"id": "owner/name", "sha": "c1", "siblings": []})

    def _entry(self, name: str) -> dict[str, object]:
        data = self.files[name]
        commit = {"id": "c1", "title": "t", "date": "2024-01-01T00:00:00.000Z"}
        content = hashlib.sha1(data, usedforsecurity=False).hexdigest()
        return {"type": "file", "path": name, "size": len(data), "oid": content, "lastCommit": commit}


@dataclass
class GoogleStorage:
    """What Google Cloud Storage's JSON API answers of one bucket, as far as gcsfs asks."""

    bucket: str
    files: dict[str, bytes]

    def __call__(self, asked: Asked) -> Reply:
        split = urlsplit(asked.path)
        query = {name: values[0] for name, values in parse_qs(split.query).items()}
        _, found, rest = split.path.partition(f"/b/{self.bucket}")
        name = unquote(rest.removeprefix("/o").removeprefix("/"))
        if found and not name:
            prefix = query.get("prefix", "")
            return _json({"items": [self._entry(key) for key in sorted(self.files) if key.startswith(prefix)]})
        if not found or name not in self.files:
            return _json({"error": {"code": 404, "message": "Not Found"}}, 404)
        if query.get("alt") == "media":
            return Site({"/": self.files[name]})(asked._replace(path="/"))
        return _json(self._entry(name))

    def _entry(self, name: str) -> dict[str, str]:
        data = self.files[name]
        content = hashlib.md5(data, usedforsecurity=False).hexdigest()
        return {"bucket": self.bucket, "name": name, "size": str(len(data)), "md5Hash": content, "generation": "1"}
