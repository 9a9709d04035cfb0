"""Which files of a location are shards: plain folders, Dolma's layout, saved Hugging Face datasets."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from file_servers import Faults, Site, serve

from winnow.config import Corpus, Location, Source
from winnow.errors import UserError
from winnow.home import Home
from winnow.text.deliveries import DeliveredFile, Delivery, scan
from winnow.text.layouts import find_shards


def _write(root: Path, *names: str, text: str = "{}") -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def _named(root: Path | str, layout: str = "auto", source: str = "", *include: str) -> dict[str, str]:
    return {shard.name: shard.source for shard in find_shards(root, include or ["**/*"], layout, source)}


def _save(folder: Path, files: int = 1, **state: Any) -> None:
    """Write what ``Dataset.save_to_disk`` leaves, with empty Arrow files."""
    names = [f"data-{index:05d}-of-{files:05d}.arrow" for index in range(files)]
    _write(folder, *names, "dataset_info.json")
    described = {"_data_files": [{"filename": name} for name in names], "_fingerprint": "x", "_split": None, **state}
    _write(folder, "state.json", text=json.dumps(described))


# plain files


def test_a_files_folder_is_its_source_and_the_root_names_the_rest(tmp_path: Path) -> None:
    _write(tmp_path / "raw", "a.jsonl", "wiki/b.jsonl", "wiki/en/c.jsonl")
    assert _named(tmp_path / "raw") == {
        "raw/a.jsonl": "raw",
        "wiki/b.jsonl": "wiki",
        "wiki/en/c.jsonl": "wiki/en",
    }


def test_a_locations_source_is_that_of_all_its_files(tmp_path: Path) -> None:
    _write(tmp_path, "a.jsonl", "x/a.jsonl", "y/a.jsonl")
    assert _named(tmp_path, "files", "web") == {"web/a.jsonl": "web", "web/x/a.jsonl": "web", "web/y/a.jsonl": "web"}


def test_a_root_that_is_a_file_has_its_folders_name_as_source(tmp_path: Path) -> None:
    _write(tmp_path, "wiki/a.jsonl", "wiki/b.jsonl")
    assert _named(tmp_path / "wiki/a.jsonl") == {"wiki/a.jsonl": "wiki"}
    assert _named(tmp_path / "wiki/a.jsonl", "auto", "web") == {"web/a.jsonl": "web"}


def test_a_single_file_of_no_known_format_is_named(tmp_path: Path) -> None:
    _write(tmp_path, "a.unknown")
    with pytest.raises(UserError, match=r"format; give it, as in \[corpus.sources"):
        find_shards(tmp_path / "a.unknown", ["**/*"], is_corpus_file=lambda source, file: False)


# Dolma


def test_attributes_are_joined_to_the_documents_of_the_same_path(tmp_path: Path) -> None:
    root = tmp_path / "c4"
    _write(root, "documents/en/0.json.gz", "documents/1.json.gz", "documents/en/2.json.gz")
    _write(root, "attributes/pii/en/0.json.gz", "attributes/pii/1.json.gz", "attributes/lang/v2/en/0.json.gz")
    _write(root, "README.md")
    for layout in ("dolma", "auto"):
        found = {shard.name: shard for shard in find_shards(root, ["**/*.gz"], layout)}
        assert {name: shard.source for name, shard in found.items()} == {
            "c4/1.json.gz": "c4",
            "en/0.json.gz": "en",
            "en/2.json.gz": "en",
        }
        taggers = [(tagger, file.relative) for tagger, file in found["en/0.json.gz"].attributes]
        assert taggers == [
            ("lang/v2", "attributes/lang/v2/en/0.json.gz"),
            ("pii", "attributes/pii/en/0.json.gz"),
        ]
        assert [tagger for tagger, _ in found["c4/1.json.gz"].attributes] == ["pii"]
        assert found["en/2.json.gz"].attributes == ()


def test_attributes_are_found_whatever_the_globs_and_are_never_shards(tmp_path: Path) -> None:
    _write(tmp_path, "documents/a/0.jsonl", "documents/b/0.jsonl", "attributes/t/a/0.jsonl", "attributes/t/b/0.jsonl")
    (shard,) = find_shards(tmp_path, ["documents/a/*"], "auto")
    assert shard.name == "a/0.jsonl" and [tagger for tagger, _ in shard.attributes] == ["t"]
    assert _named(tmp_path) == {"a/0.jsonl": "a", "b/0.jsonl": "b"}


def test_one_of_the_two_folders_alone_is_a_plain_folder(tmp_path: Path) -> None:
    _write(tmp_path / "one", "documents/a/0.jsonl")
    _write(tmp_path / "two", "attributes/t/0.jsonl")
    assert _named(tmp_path / "one") == {"documents/a/0.jsonl": "documents/a"}
    assert _named(tmp_path / "two") == {"attributes/t/0.jsonl": "attributes/t"}
    assert _named(tmp_path / "one", "dolma") == {"a/0.jsonl": "a"}
    with pytest.raises(UserError, match="needs a folder documents/"):
        find_shards(tmp_path / "two", ["**/*"], "dolma")


def test_a_fingerprint_changes_when_an_attributes_file_comes_changes_or_goes(tmp_path: Path) -> None:
    _write(tmp_path, "documents/0.jsonl", "attributes/t/0.jsonl")
    document = tmp_path / "documents/0.jsonl"

    def version() -> int:
        (shard,) = find_shards(tmp_path, ["**/*"], "dolma")
        return shard.version

    first = version()
    assert first == version() and first != document.stat().st_mtime_ns and 0 < first < 2**63
    _write(tmp_path, "attributes/u/0.jsonl")
    more = version()
    os.utime(tmp_path / "attributes/u/0.jsonl", ns=(1, 1))
    touched = version()
    (tmp_path / "attributes/u/0.jsonl").unlink()
    assert len({first, more, touched}) == 3 and version() == first
    (tmp_path / "attributes/t/0.jsonl").unlink()
    assert version() == document.stat().st_mtime_ns


def test_attributes_without_documents_are_reported_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _write(tmp_path, "documents/0.jsonl", "attributes/t/0.jsonl", "attributes/t/1.jsonl")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert len(find_shards(tmp_path, ["**/*"], "auto")) == 1
    (record,) = [record for record in caplog.records if "attributes" in record.message]
    assert "attributes/t/1.jsonl" in record.message


# saved datasets


def test_a_saved_dataset_is_what_its_state_names_anywhere_below_the_root(tmp_path: Path) -> None:
    _write(tmp_path, "plain/a.jsonl")
    _save(tmp_path / "deep/wiki", 2)
    _write(tmp_path, "deep/wiki/cache-1a2b.arrow", "deep/wiki/README.md")
    expected = {
        "deep/wiki/data-00000-of-00002.arrow": "deep/wiki",
        "deep/wiki/data-00001-of-00002.arrow": "deep/wiki",
    }
    assert _named(tmp_path) == {**expected, "plain/a.jsonl": "plain"}
    assert _named(tmp_path, "huggingface") == expected
    assert _named(tmp_path, "auto", "", "deep/**/*.arrow") == expected
    assert set(_named(tmp_path, "files")) > set(expected)


def test_a_saved_dataset_may_be_the_root(tmp_path: Path) -> None:
    _save(tmp_path / "wiki")
    assert _named(tmp_path / "wiki") == {"wiki/data-00000-of-00001.arrow": "wiki"}


def test_each_split_is_a_source(tmp_path: Path) -> None:
    for split in ("train", "test"):
        _save(tmp_path / "wiki" / split)
    _write(tmp_path, "wiki/dataset_dict.json", text='{"splits": ["train", "test"]}')
    expected = {
        "wiki/test/data-00000-of-00001.arrow": "wiki/test",
        "wiki/train/data-00000-of-00001.arrow": "wiki/train",
    }
    assert _named(tmp_path) == _named(tmp_path / "wiki") == _named(tmp_path / "wiki", "huggingface") == expected
    assert _named(tmp_path / "wiki", "auto", "", "train/*") == dict(list(expected.items())[1:])
    assert _named(tmp_path / "wiki", "auto", "web") == {
        "web/test/data-00000-of-00001.arrow": "web",
        "web/train/data-00000-of-00001.arrow": "web",
    }


@pytest.mark.parametrize(
    ("state", "mend"),
    [
        ({"_indices_data_files": [{"filename": "indices.arrow"}]}, "flatten_indices"),
        ({"_data_files": [{"filename": "data-00009.arrow"}]}, "data-00009.arrow, which is not there: copy the folder"),
        ({"_data_files": [{"filename": "../../etc/passwd"}]}, "names no data files below its folder"),
        ({"_data_files": [{"filename": "/etc/passwd"}]}, "names no data files below its folder"),
        ({"_data_files": None}, "names no data files"),
        ({"_data_files": ["a.arrow"]}, "names no data files"),
    ],
)
def test_a_saved_dataset_that_cannot_be_read_whole_is_the_users_mistake(
    tmp_path: Path, state: dict[str, Any], mend: str
) -> None:
    _save(tmp_path / "wiki", **state)
    with pytest.raises(UserError, match=mend):
        find_shards(tmp_path, ["**/*"])


@pytest.mark.parametrize("text", ["", "[1]", '{"_data_files": ', "\x00", "[" * 100_000])
def test_a_broken_state_is_named(tmp_path: Path, text: str) -> None:
    _save(tmp_path / "wiki")
    _write(tmp_path, "wiki/state.json", text=text)
    with pytest.raises(UserError, match=r"wiki/state\.json .*save the dataset anew"):
        find_shards(tmp_path, ["**/*"])


def test_a_missing_split_and_a_missing_dataset_are_named(tmp_path: Path) -> None:
    _save(tmp_path / "wiki/train")
    _write(tmp_path, "wiki/dataset_dict.json", text='{"splits": ["train", "test"]}')
    with pytest.raises(UserError, match="names the split 'test'"):
        find_shards(tmp_path, ["**/*"])
    _write(tmp_path / "plain", "a.arrow")
    with pytest.raises(UserError, match="needs a folder with state"):
        find_shards(tmp_path / "plain", ["**/*"], "huggingface")


def test_layouts_are_told_apart_in_a_store_too() -> None:
    import fsspec

    store = fsspec.filesystem("memory")
    state = json.dumps({"_data_files": [{"filename": "data.arrow"}]}).encode()
    store.pipe(
        {
            "/layouts/d/documents/en/0.jsonl": b"{}",
            "/layouts/d/attributes/t/en/0.jsonl": b"{}",
            "/layouts/h/wiki/state.json": state,
            "/layouts/h/wiki/dataset_info.json": b"{}",
            "/layouts/h/wiki/data.arrow": b"",
        }
    )
    (shard,) = find_shards("memory://layouts/d", ["**/*"])
    assert shard.name == "en/0.jsonl"
    assert [file.path for _, file in shard.attributes] == ["memory://layouts/d/attributes/t/en/0.jsonl"]
    assert _named("memory://layouts/h") == {"wiki/data.arrow": "wiki"}


# scan


@pytest.fixture
def home(tmp_path: Path) -> Home:
    (tmp_path / "inbox").mkdir()
    return Home(tmp_path)


def _shards(home: Home, *locations: Location, **sources: Source) -> list[str]:
    return [file.shard for file in scan(home, Corpus(locations=list(locations), sources=sources))]


def test_every_file_of_a_source_with_a_format_is_a_corpus_file(home: Home) -> None:
    _write(home.inbox, "logs/a", "logs/b.dump", "other/a.dump", "other/c.jsonl")
    assert _shards(home, Location()) == ["other/c.jsonl"]
    assert _shards(home, Location(), logs=Source(format="jsonl")) == ["logs/a", "logs/b.dump", "other/c.jsonl"]


def test_two_locations_may_not_deliver_one_shard(home: Home) -> None:
    _write(home.root, "one/wiki/a.jsonl", "two/wiki/a.jsonl")
    with pytest.raises(UserError, match=r"would both be shard 'wiki/a\.jsonl'"):
        _shards(home, Location(root="one"), Location(root="two"))
    assert _shards(home, Location(root="one"), Location(root="one")) == ["wiki/a.jsonl"]
    named = _shards(home, Location(root="one"), Location(root="two", source="new"))
    assert named == ["new/wiki/a.jsonl", "wiki/a.jsonl"]


def test_a_url_and_a_folder_make_one_corpus(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    _write(home.inbox, "wiki/a.jsonl")
    with serve(Site({"/web/b.jsonl": b"{}\n"}), Faults()) as address:
        files = scan(home, Corpus(locations=[Location(), Location(root=f"{address}/web/b.jsonl")]))
    assert [(file.shard, file.source, file.bytes) for file in files] == [
        ("web/b.jsonl", "web", 3),
        ("wiki/a.jsonl", "wiki", 2),
    ]
    assert files[0].path == f"{address}/web/b.jsonl" and files[1].path == str(home.inbox / "wiki/a.jsonl")


def test_a_shards_name_must_be_utf8(home: Home) -> None:
    Path(os.fsdecode(os.fsencode(home.inbox) + b"/a\xff.jsonl")).write_text("{}")
    with pytest.raises(UserError, match="not UTF-8; rename it"):
        _shards(home, Location())


def test_a_delivery_keeps_attributes_and_reads_what_was_saved_without(home: Home) -> None:
    _write(home.inbox, "documents/en/0.jsonl", "attributes/t/en/0.jsonl")
    files = scan(home, Corpus())
    assert files[0].attributes == (("t", str(home.inbox / "attributes/t/en/0.jsonl")),)
    delivery = Delivery(tuple(files))
    delivery.save(home)
    assert Delivery.load(home, delivery.key) == delivery
    old = {key: value for key, value in asdict(files[0]).items() if key != "attributes"}
    (home.batches / "batch-old.json").write_text(json.dumps({"files": [old], "withdrawn": [], "after": 0}))
    (read,) = Delivery.load(home, "batch-old").files
    assert read == DeliveredFile(**old) and read.attributes == ()
