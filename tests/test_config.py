"""One configuration: what it accepts, what it refuses and how it says so, and which part of it is semantic."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from winnow.config import LOCATIONS, Config, Corpus, Location, Source, load_config, save_config, validate_config
from winnow.errors import UserError
from winnow.identity import canonical_json


def refusal(tmp_path, text: str) -> str:
    path = tmp_path / "winnow.toml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        load_config(path)
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


def test_a_missing_file_means_every_default(tmp_path):
    assert load_config(tmp_path / "winnow.toml") == Config()


def test_every_default_is_valid_and_written_out_reads_back():
    plain = Config().model_dump(mode="json")
    assert Config.model_validate(plain) == Config()
    assert set(plain) == set(Config.model_fields)


@pytest.mark.parametrize(
    ("text", "key", "allowed"),
    [
        ("[qualty]\nfilter = true", "qualty", "corpus, reference, quality"),
        ("[quality]\nfiler = true", "quality.filer", "filter, gopher"),
        ("[selection]\nbudget = 5", "selection.budget", "budget_tokens"),
        ("top = 1", "top", "corpus, reference"),
    ],
)
def test_an_unknown_key_is_refused_with_the_allowed_ones(tmp_path, text, key, allowed):
    message = refusal(tmp_path, text)
    assert message.startswith(f"unknown key '{key}'; allowed here: ")
    assert allowed in message


@pytest.mark.parametrize(
    ("text", "key", "allowed"),
    [
        ("[[corpus.locations]]\nroot = 'a'\nglob = 'b'", "corpus.locations.0.glob", "root, include"),
        ("[corpus.sources.web]\ntext = 'body'", "corpus.sources.web.text", "text_field, id_field"),
    ],
)
def test_an_unknown_key_deep_inside_is_refused_with_what_is_allowed_there(tmp_path, text, key, allowed):
    assert refusal(tmp_path, text).startswith(f"unknown key '{key}'; allowed here: {allowed}")


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("[duplicates]\nthreshold = 'high'", "duplicates.threshold = 'high': "),
        ("[duplicates]\nthreshold = 1.5", "duplicates.threshold = 1.5: "),
        ("[duplicates]\nseed = 4294967296", "duplicates.seed = 4294967296: "),
        ("[selection]\nbudget_tokens = -1", "selection.budget_tokens = -1: "),
        ("[selection]\nbudget_tokens = 1.5", "selection.budget_tokens = 1.5: "),
        ("[store]\nbackend = 'postgres'", "store.backend = 'postgres': "),
        ("[store]\nlock_wait_seconds = 0", "store.lock_wait_seconds = 0: "),
        ("[quality]\nfilter = 'perhaps'", "quality.filter = 'perhaps': "),
        ("[corpus.sources.web]\ntext_field = ''", "corpus.sources.web.text_field = '': "),
        ("corpus = 'here'", "corpus = 'here': "),
        ("[reference]\njudging_share = 0", "reference.judging_share = 0: "),
    ],
)
def test_a_wrong_type_or_value_is_refused_with_key_and_value(tmp_path, text, key):
    assert refusal(tmp_path, text).startswith(key)


@pytest.mark.parametrize("text", ["[quality", "a = ", "[a]\n[a]"])
def test_bad_toml_is_refused_with_its_place(tmp_path, text):
    assert refusal(tmp_path, text).startswith("not valid TOML (")


def test_bytes_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "winnow.toml"
    path.write_bytes(b"[quality]\n# \xff\xfe\n")
    with pytest.raises(UserError, match="not valid TOML"):
        load_config(path)


configurations = st.fixed_dictionaries(
    {},
    optional={
        "corpus": st.fixed_dictionaries(
            {},
            optional={
                "locations": st.lists(
                    st.fixed_dictionaries({"root": st.text("ab /'\"ü\\", min_size=1), "include": st.just(["**/*.md"])})
                ),
                "sources": st.dictionaries(
                    st.text("ab./ü\"'", min_size=1, max_size=5),
                    st.fixed_dictionaries({}, optional={"priority": st.integers(-9, 9), "id_field": st.text("ab")}),
                    max_size=3,
                ),
                "max_record_bytes": st.integers(1, 2**40),
            },
        ),
        "selection": st.fixed_dictionaries({"budget_tokens": st.integers(0, 2**40)}),
        "train": st.fixed_dictionaries({"learning_rate": st.floats(1e-9, 1e9)}),
        "quality": st.fixed_dictionaries({"gopher": st.dictionaries(st.just("min_words"), st.integers(0, 99))}),
        "contamination": st.fixed_dictionaries(
            {"evaluation_sets": st.dictionaries(st.text("ab-ü", min_size=1), st.text("ab/'", min_size=1))}
        ),
    },
)


@given(configurations)
def test_what_is_saved_is_what_is_loaded(tmp_path_factory, plain):
    path = tmp_path_factory.mktemp("home") / "deep" / "winnow.toml"
    config = validate_config(plain, path)
    save_config(config, path)
    assert load_config(path) == config
    assert [other.name for other in path.parent.iterdir()] == ["winnow.toml"]


def test_only_what_differs_from_the_defaults_is_written(tmp_path):
    path = tmp_path / "winnow.toml"
    save_config(Config(corpus=Corpus(sources={"web": Source(priority=2)})), path)
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    assert lines == ["[corpus.sources.web]", "priority = 2"]
    save_config(Config(), path)
    assert load_config(path) == Config()


def test_semantic_settings_say_what_and_not_where():
    sections = tuple(Config.model_fields)
    plain = Config().semantic_settings(*sections)
    for section, keys in LOCATIONS.items():
        assert set(keys) <= set(Config().model_dump()[section])
        assert not set(keys) & set(plain[section])
    moved = Config.model_validate(
        {
            "corpus": {"locations": [{"root": "/elsewhere"}]},
            "reference": {"path": "/other.jsonl"},
            "contamination": {"evaluation_sets": {"a": "b"}},
            "encoder": {"name": "/models/x"},
            "model": {"checkpoint": "/models/y"},
        }
    )
    assert moved.semantic_settings(*sections) == plain
    canonical_json(plain)


def test_semantic_settings_are_those_of_the_named_sections_and_change_with_them():
    config = Config.model_validate({"selection": {"alpha": 0.5}})
    assert set(config.semantic_settings("selection", "mixture")) == {"selection", "mixture"}
    assert config.semantic_settings("selection") != Config().semantic_settings("selection")
    assert config.semantic_settings("mixture") == Config().semantic_settings("mixture")


def test_a_configuration_cannot_be_changed_in_place():
    with pytest.raises(ValueError, match="frozen"):
        Config().selection.alpha = 1.0
    assert Config().corpus.locations == [Location()]


def test_a_source_without_settings_is_read_by_the_defaults():
    corpus = Corpus(sources={"web": Source(text_field="body")})
    assert corpus.source("web").text_field == "body"
    assert corpus.source("books") == Source()
