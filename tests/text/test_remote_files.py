"""Files of stores and web servers: listed, read at any place, and what happens when the server fails meanwhile."""

from __future__ import annotations

import logging
import os
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from file_servers import Asked, Faults, GoogleStorage, Hub, Reply, Site, proxy, serve

from winnow.errors import UserError
from winnow.text import remote_file, retries
from winnow.text.locations import list_files, open_binary
from winnow.text.web import open_web

BLOCK = 2**16
BIG = random.Random(1).randbytes(5 * BLOCK + 1234)


@pytest.fixture(autouse=True)
def _short_waits_and_small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "BACKOFF_SECONDS", 0.001)
    monkeypatch.setattr(remote_file, "BLOCK_BYTES", BLOCK)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def _relatives(root: str, *globs: str) -> list[str]:
    return [listed.relative for listed in list_files(root, globs or ["**/*"])]


def _read(path: str) -> bytes:
    with open_binary(path) as file:
        return file.read()


# S3


@dataclass
class Bucket:
    """A bucket of a local S3 server, and the proxy before it that misbehaves."""

    client: Any
    faults: Faults
    name: str = "corpus-bucket"

    def put(self, **files: bytes) -> None:
        for key, data in files.items():
            self.client.put_object(Bucket=self.name, Key=key, Body=data)


@pytest.fixture(scope="module")
def s3_server() -> Iterator[str]:
    server_of = pytest.importorskip("moto.server", reason="the local S3 server needs moto[server]")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = server_of.ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    yield f"http://127.0.0.1:{server.get_host_and_port()[1]}"
    server.stop()


@pytest.fixture(scope="module")
def client(s3_server: str) -> Any:
    import boto3

    keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
    return boto3.client("s3", endpoint_url=s3_server, region_name="us-east-1", **keys)


@pytest.fixture
def bucket(s3_server: str, client: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")  # so that it is our own attempts that are tested
    faults = Faults()
    with serve(proxy(s3_server), faults) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        client.create_bucket(Bucket=Bucket.name)
        yield Bucket(client, faults)
        for item in client.list_objects_v2(Bucket=Bucket.name).get("Contents", ()):
            client.delete_object(Bucket=Bucket.name, Key=item["Key"])
        client.delete_bucket(Bucket=Bucket.name)


def test_objects_are_found_below_their_prefix_as_files_below_a_folder(bucket: Bucket) -> None:
    names = ["a.jsonl", "b/c.parquet", "b/two..dots.jsonl", 'b/it\'s "odd" é%20?.jsonl', "b/[x]*.jsonl"]
    ignored = ["_SUCCESS", ".hidden/a.jsonl", "_temporary/a.jsonl", "b/c.jsonl.part"]
    bucket.put(**{f"raw/{name}": name.encode() for name in [*names, *ignored]}, **{"rawer/a.jsonl": b"", "raw/d/": b""})
    root = f"s3://{bucket.name}/raw"
    found = list_files(root, ["**/*"])
    assert [listed.relative for listed in found] == sorted(names, key=lambda name: name.split("/"))
    assert [_read(listed.path).decode() for listed in found] == [listed.relative for listed in found]
    assert [listed.bytes for listed in found] == [len(listed.relative.encode()) for listed in found]
    assert _relatives(root, "*") == ["a.jsonl"]
    assert _relatives(root, "b/*.parquet", "*.jsonl") == ["a.jsonl", "b/c.parquet"]
    assert _relatives(root, "nothing/*") == []
    assert _relatives(f"s3://{bucket.name}/raw/a.jsonl") == ["a.jsonl"]


def test_only_the_folders_that_globs_name_are_asked_for(bucket: Bucket) -> None:
    bucket.put(**{"raw/2024/a.jsonl": b"1", "raw/2025/a.jsonl": b"2"})
    assert _relatives(f"s3://{bucket.name}/raw", "2025/**/*.jsonl") == ["2025/a.jsonl"]
    assert all("2025" in asked.path for asked in bucket.faults.asked)


def test_the_version_changes_with_the_content_and_only_with_it(bucket: Bucket) -> None:
    def version() -> int:
        (listed,) = list_files(f"s3://{bucket.name}", ["**/*"])
        return listed.version

    bucket.put(a=b"one")
    first = version()
    bucket.put(a=b"two")
    second = version()
    bucket.put(a=b"one")
    assert first != second and first == version() and 0 < first < 2**63


def test_an_object_is_read_at_any_place_in_bounded_memory(bucket: Bucket) -> None:
    bucket.put(big=BIG)
    rng = random.Random(2)
    with open_binary(f"s3://{bucket.name}/big") as file:
        assert file.seekable() and file.readable()
        for _ in range(40):
            start, size = rng.randrange(len(BIG) + 10), rng.randrange(2 * BLOCK)
            assert file.seek(start) == start
            assert file.read(size) == BIG[start : start + size]
            assert len(file.raw._kept) <= remote_file.BLOCKS_KEPT  # type: ignore[attr-defined]
        assert file.seek(-7, os.SEEK_END) == len(BIG) - 7
        assert file.read() == BIG[-7:] and file.read(1) == b""
    assert _read(f"s3://{bucket.name}/big") == BIG


@pytest.mark.parametrize("where", ["missing-bucket/raw", "corpus-bucket/missing"])
def test_a_missing_bucket_or_folder_is_no_empty_folder(bucket: Bucket, where: str) -> None:
    with pytest.raises(UserError, match=rf"s3://{where} cannot be listed.*no such bucket, folder or file"):
        list_files(f"s3://{where}", ["**/*"])


def test_missing_credentials_are_named(bucket: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(UserError, match="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
        list_files(f"s3://{bucket.name}", ["**/*"])
    s3fs.S3FileSystem.clear_instance_cache()


def test_refused_credentials_are_not_tried_again(bucket: Bucket) -> None:
    bucket.faults.always = "403"
    with pytest.raises(UserError, match="check that they may list it"):
        list_files(f"s3://{bucket.name}/raw", ["**/*"])
    assert len(bucket.faults.asked) == 1


@pytest.mark.parametrize("fault", ["500", "503", "reset", "cut"])
def test_a_passing_fault_is_not_noticed(bucket: Bucket, fault: str) -> None:
    bucket.put(**{"raw/big": BIG})
    bucket.faults.next = [fault] * 3
    assert _relatives(f"s3://{bucket.name}/raw") == ["big"]
    bucket.faults.at = lambda asked: asked.method == "GET"
    for turn in range(2):
        bucket.faults.next = [fault] * (3 + turn)
        assert _read(f"s3://{bucket.name}/raw/big") == BIG
        assert not bucket.faults.next


@pytest.mark.parametrize("fault", ["500", "reset", "cut"])
def test_a_lasting_fault_is_a_clear_error_and_no_short_file(bucket: Bucket, fault: str) -> None:
    bucket.put(**{"raw/big": BIG})
    with open_binary(f"s3://{bucket.name}/raw/big") as file:
        assert file.read(10) == BIG[:10]
        bucket.faults.always = fault
        with pytest.raises(OSError, match="cannot be read from the server") as raised:
            file.read()
        assert raised.value.filename == f"s3://{bucket.name}/raw/big"
        bucket.faults.always = ""
        file.seek(0)
        assert file.read() == BIG  # the failure is not remembered as data
    bucket.faults.always = fault
    with pytest.raises(UserError, match="did not answer as it should, several times"):
        list_files(f"s3://{bucket.name}/raw", ["**/*"])
    if fault != "cut":  # the answer that tells the size has no body
        with pytest.raises(OSError, match="cannot be read from the server"):
            open_binary(f"s3://{bucket.name}/raw/big")


def test_a_server_that_is_not_there_is_named(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"127\.0\.0\.1:9.*check the network and AWS_ENDPOINT_URL"):
        list_files(f"s3://{bucket.name}/raw", ["**/*"])


def test_an_object_that_changes_or_goes_while_it_is_read_is_an_error(bucket: Bucket) -> None:
    bucket.put(big=BIG)
    with open_binary(f"s3://{bucket.name}/big") as file:
        file.read(10)
        bucket.put(big=BIG[::-1])
        with pytest.raises(OSError, match="changed while it was being read"):
            file.read()
    with open_binary(f"s3://{bucket.name}/big") as file:
        file.read(10)
        bucket.client.delete_object(Bucket=bucket.name, Key="big")
        with pytest.raises(FileNotFoundError):
            file.read()
    with pytest.raises(FileNotFoundError):
        open_binary(f"s3://{bucket.name}/big")


def test_a_file_that_is_read_front_to_back_is_fetched_ahead_and_once(bucket: Bucket) -> None:
    bucket.put(big=BIG)
    bucket.faults.asked.clear()
    with open_binary(f"s3://{bucket.name}/big") as file:
        while file.read(1000):
            pass
    assert sum(asked.method == "GET" for asked in bucket.faults.asked) == -(-len(BIG) // BLOCK)


# the web


@dataclass
class Web:
    address: str
    site: Site
    faults: Faults = field(default_factory=Faults)


@pytest.fixture
def web() -> Iterator[Callable[..., Web]]:
    from contextlib import ExitStack

    with ExitStack() as stack:

        def start(**options: Any) -> Web:
            site, faults = Site({"/data/big.jsonl": BIG, "/data/a b.txt": b"small"}, **options), Faults()
            return Web(stack.enter_context(serve(site, faults)), site, faults)

        yield start


def _all_over(path: str) -> None:
    with open_binary(path) as file:
        assert file.read(100) == BIG[:100]
        file.seek(-100, os.SEEK_END)
        assert file.read() == BIG[-100:]
        file.seek(BLOCK - 5)
        assert file.read(10) == BIG[BLOCK - 5 : BLOCK + 5]
        file.seek(0)
        assert file.read() == BIG


@pytest.mark.parametrize("length", [True, False])
@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("etag", [True, False])
@pytest.mark.parametrize("modified", ["Wed, 21 Oct 2015 07:28:00 GMT", ""])
def test_a_url_is_one_file_whatever_its_server_tells(
    web: Callable[..., Web], ranges: bool, etag: bool, modified: str, length: bool
) -> None:
    here = web(ranges=ranges, etag=etag, modified=modified, length=length)
    url = f"{here.address}/data/big.jsonl?download=true"
    (listed,) = list_files(url, ["**/*"])
    assert listed.relative == "big.jsonl" and listed.path == url
    assert listed.bytes == (len(BIG) if ranges or length else 0)
    assert listed.version == list_files(url, ["**/*"])[0].version != 0
    _all_over(url)
    here.site.files["/data/big.jsonl"] = BIG[::-1]
    changed = list_files(url, ["**/*"])[0].version != listed.version
    assert changed == etag  # by size alone, where the server does not say


def test_globs_of_a_web_root_name_its_files(web: Callable[..., Web]) -> None:
    here = web()
    root = f"{here.address}/data"
    found = list_files(root, ["big.jsonl", "a b.txt"])
    assert [listed.relative for listed in found] == ["a b.txt", "big.jsonl"]
    assert [_read(listed.path) for listed in found] == [b"small", BIG]
    with pytest.raises(UserError, match="no such bucket, folder or file"):
        list_files(root, ["big.jsonl", "gone.jsonl"])
    with pytest.raises(UserError, match="a web server has no listing"):
        list_files(f"{root}/", ["**/*.jsonl"])


def test_an_empty_file_is_an_empty_file(web: Callable[..., Web]) -> None:
    for ranges in (True, False):
        here = web(ranges=ranges)
        here.site.files["/empty.jsonl"] = b""
        (listed,) = list_files(f"{here.address}/empty.jsonl", ["**/*"])
        assert listed.bytes == 0 and _read(listed.path) == b""


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("fault", ["500", "429", "reset", "cut"])
def test_a_web_server_that_fails_for_a_while_is_asked_again(web: Callable[..., Web], fault: str, ranges: bool) -> None:
    here = web(ranges=ranges)
    here.faults.next = [fault] * 4
    assert _read(f"{here.address}/data/big.jsonl") == BIG
    assert not here.faults.next


def test_reading_goes_on_where_the_connection_was_cut(web: Callable[..., Web]) -> None:
    here = web()
    here.faults.next = ["cut"] * 3
    here.faults.at = lambda asked: asked.headers.get("Range") != "bytes=0-0"
    assert _read(f"{here.address}/data/big.jsonl") == BIG
    starts = [int(asked.headers["Range"][6:].split("-")[0]) for asked in here.faults.asked]
    assert starts == sorted(starts) and len(set(starts)) > 3


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("fault", ["500", "reset", "cut"])
def test_a_web_server_that_keeps_failing_is_a_clear_error(web: Callable[..., Web], fault: str, ranges: bool) -> None:
    here = web(ranges=ranges)
    here.faults.always = fault
    with pytest.raises(OSError, match="cannot be read from the server"):
        _read(f"{here.address}/data/big.jsonl")
    if fault != "cut":
        with pytest.raises(UserError, match="cannot be listed"):
            list_files(f"{here.address}/data/big.jsonl", ["**/*"])


def test_a_chunked_answer_that_is_cut_is_no_short_file(web: Callable[..., Web]) -> None:
    here = web(ranges=False, length=False)
    here.faults.always = "cut"
    with pytest.raises(OSError, match="cannot be read from the server"):
        _read(f"{here.address}/data/big.jsonl")


@pytest.mark.parametrize("etag", [True, False])
@pytest.mark.parametrize("new", [BIG[::-1], BIG[:BLOCK], BIG + b"more"])
def test_a_web_file_that_changes_while_it_is_read_is_an_error(web: Callable[..., Web], etag: bool, new: bytes) -> None:
    here = web(etag=etag)
    with open_binary(f"{here.address}/data/big.jsonl") as file:
        file.read(10)
        here.site.files["/data/big.jsonl"] = new
        if not etag:
            here.site.modified = "Thu, 22 Oct 2015 07:28:00 GMT"
        file.seek(4 * BLOCK)
        with pytest.raises(OSError, match="changed while it was being read"):
            file.read()


@pytest.mark.parametrize("status", ["401", "403", "404", "410"])
def test_what_the_user_must_mend_is_not_tried_again(web: Callable[..., Web], status: str) -> None:
    here = web()
    here.faults.always = status
    mend = "in the environment" if status < "404" else "check the name"
    with pytest.raises(UserError, match=mend):
        list_files(f"{here.address}/data/big.jsonl", ["**/*"])
    assert len(here.faults.asked) == 1


# memory, the hub and Google's buckets


@pytest.fixture
def memory() -> Iterator[Any]:
    import fsspec

    store = fsspec.filesystem("memory")
    store.store.clear()
    yield store
    store.store.clear()


def test_a_store_in_memory_is_a_location(memory: Any) -> None:
    memory.pipe({"/raw/a.jsonl": b"a", "/raw/b/big.parquet": BIG, "/raw/_x/a.jsonl": b"", "/other/c.jsonl": b"c"})
    assert _relatives("memory://raw") == ["a.jsonl", "b/big.parquet"]
    assert _relatives("memory://raw/a.jsonl", "*.txt") == ["a.jsonl"]
    _all_over("memory://raw/b/big.parquet")
    with pytest.raises(UserError, match="memory://nothing cannot be listed"):
        list_files("memory://nothing", ["**/*"])
    with pytest.raises(OSError):
        open_binary("memory://raw/b")


def test_a_stored_file_that_changes_while_it_is_read_is_an_error(memory: Any) -> None:
    memory.pipe({"/raw/a": BIG})
    with open_binary("memory://raw/a") as file:
        file.read(10)
        memory.pipe({"/raw/a": BIG[::-1]})
        with pytest.raises(OSError, match="changed while it was being read"):
            file.read()


def test_a_stored_file_that_gives_fewer_bytes_than_it_has_is_an_error(
    memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.pipe({"/raw/a": BIG})
    whole = type(memory).cat_file
    monkeypatch.setattr(type(memory), "cat_file", lambda self, path, start, end: whole(self, path, start, end)[:BLOCK])
    assert _read("memory://raw/a") == BIG  # short answers are put together
    monkeypatch.setattr(type(memory), "cat_file", lambda self, path, start, end: b"")
    with pytest.raises(OSError, match="sent none of the bytes from 0"):
        _read("memory://raw/a")


def test_a_dataset_of_the_hub_is_a_location(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The hub's own client against an imitation of the hub's interface: the real hub cannot be asked in a test."""
    from huggingface_hub import HfFileSystem

    monkeypatch.setenv("HF_HOME", str(tmp_path))
    hub = Hub({"data/a.parquet": BIG, "data/x y.jsonl": b"odd", "README.md": b"card", ".gitattributes": b""})
    with serve(hub, Faults()) as address:
        registry = sys.modules["fsspec.registry"]._registry  # type: ignore[attr-defined]
        monkeypatch.setitem(registry, "hf", partial(HfFileSystem, endpoint=address))
        assert _relatives("hf://datasets/owner/name") == ["README.md", "data/a.parquet", "data/x y.jsonl"]
        assert _relatives("hf://datasets/owner/name/data") == ["a.parquet", "x y.jsonl"]
        root = "hf://datasets/owner/name@v1"
        assert _relatives(root, "data/*.parquet") == ["data/a.parquet"]
        assert _relatives(f"{root}/data/a.parquet") == ["a.parquet"]
        assert _read(f"{root}/data/x y.jsonl") == b"odd"
        (listed,) = list_files(root, ["**/*.parquet"])
        assert listed.path == f"{root}/data/a.parquet" and listed.bytes == len(BIG) and listed.version
        _all_over(listed.path)
        with open_binary(listed.path) as file:
            file.read(10)
            hub.files["data/a.parquet"] = BIG[::-1]
            with pytest.raises(OSError, match="changed while it was being read"):
                file.read()
        assert list_files(root, ["**/*.parquet"])[0].version != listed.version
        for missing in ("hf://datasets/owner/other", "hf://datasets/owner/name/nothing"):
            with pytest.raises(UserError, match="a private one needs HF_TOKEN"):
                list_files(missing, ["**/*"])


def test_a_bucket_of_google_is_a_location(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client gcsfs against an imitation of Google's interface: the real one cannot be asked in a test."""
    core = pytest.importorskip("gcsfs.core", reason="gs:// needs gcsfs")
    # The plain class: the one that is registered asks Google itself what kind of bucket it is.
    registry = sys.modules["fsspec.registry"]._registry  # type: ignore[attr-defined]
    monkeypatch.setitem(registry, "gs", partial(core.GCSFileSystem, token="anon"))
    google = GoogleStorage("bucket", {"raw/a.jsonl": b"a", "raw/b/é? #x%20": BIG, "raw/_x": b"", "rawer/c": b"c"})
    with serve(google, Faults()) as address:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        (first, second) = list_files("gs://bucket/raw", ["**/*"])
        assert (first.relative, second.relative) == ("a.jsonl", "b/é? #x%20")
        assert second.bytes == len(BIG) and second.version != first.version
        _all_over(second.path)
        with open_binary(second.path) as file:
            file.read(10)
            google.files["raw/b/é? #x%20"] = BIG[::-1]
            with pytest.raises(OSError, match="changed while it was being read"):
                file.read()
        for missing in ("gs://bucket/nothing", "gs://other/raw"):
            with pytest.raises(UserError, match="no such bucket, folder or file"):
                list_files(missing, ["**/*"])


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    def missing(scheme: str, **options: Any) -> None:
        raise ImportError("Please install gcsfs to access Google Storage")

    monkeypatch.setattr(fsspec, "filesystem", missing)
    with pytest.raises(UserError, match=r"pip install 'winnow\[remote\]'"):
        list_files("gs://bucket/folder", ["**/*"])


def test_faults_are_those_asked_for() -> None:
    faults = Faults(next=["500"], at=lambda asked: asked.method == "GET")
    assert [faults.of(Asked(method, "/", {})) for method in ("HEAD", "GET", "GET")] == ["", "500", ""]


def test_a_redirect_leads_to_a_web_address_or_nowhere() -> None:
    targets = ["/there"]

    def answer(asked: Asked) -> Reply:
        return Reply(200, {}, b"there") if asked.path == "/there" else Reply(302, {"Location": targets[0]})

    faults = Faults()
    with serve(answer, faults) as address:
        assert _read(f"{address}/a.jsonl") == b"there"
        for target in ("ftp://127.0.0.1:1/a.jsonl", "file:///etc/passwd", "data:,x"):
            targets[0] = target
            faults.asked.clear()
            with pytest.raises(OSError, match=r"no web address|not allowed"):
                open_web(f"{address}/a.jsonl")
            assert len(faults.asked) == 1
