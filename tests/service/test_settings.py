from __future__ import annotations

import os
import sys
from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any

import pytest

from service.errors import SettingsError
from service.processors import available_processors
from service.settings import Settings, default_text, flag, load_settings, options, salvage_settings, variable

# A value other than the default for every setting, as it is written and as it is read.
WRITTEN: dict[str, tuple[str, object]] = {
    "bundles": (os.pathsep.join(["a", "b/c"]), (Path("a"), Path("b/c"))),
    "models_dir": ("a/b", Path("a/b")),
    "labels_dir": ("a/b", Path("a/b")),
    "bundle_keys": (os.pathsep.join(["a.pub", "b.pub"]), (Path("a.pub"), Path("b.pub"))),
    "device": ("cuda", "cuda"),
    "host": ("0.0.0.0", "0.0.0.0"),
    "port": ("0", 0),
    "metrics_port": ("9090", 9090),
    "grpc_port": ("8001", 8001),
    "max_batch_rows": ("3", 3),
    "max_batch_tokens": ("77", 77),
    "max_wait_ms": ("2.5", 2.5),
    "queue_rows": ("999", 999),
    "max_k": ("7", 7),
    "max_queries": ("2", 2),
    "max_query_chars": ("8000", 8000),
    "max_features": ("300", 300),
    "max_body_bytes": ("1000", 1000),
    "request_seconds": ("7.5", 7.5),
    "threads": ("5", 5),
    "runners": ("3", 3),
    "ray": ("10.0.0.5:6379", "10.0.0.5:6379"),
    "shard_replicas": ("2", 2),
    "most_shard_replicas": ("4", 4),
    "shard_threads": ("3", 3),
    "drain_seconds": ("0", 0.0),
    "api_keys_file": ("keys", Path("keys")),
    "admin_keys_file": ("keys", Path("keys")),
    "log_format": ("json", "json"),
    "access_log": ("all", "all"),
    "log_queries": ("on", True),
    "otlp_endpoint": ("http://collector:4318", "http://collector:4318"),
    "trace_ratio": ("0.25", 0.25),
    "prediction_log": ("a/b", Path("a/b")),
    "prediction_log_sample": ("0.1", 0.1),
}


def test_every_setting_is_in_the_table() -> None:
    assert [item.name for item in fields(Settings)] == list(options()) == list(WRITTEN)


@pytest.mark.parametrize("name", WRITTEN)
def test_a_setting_is_read_from_its_variable_and_from_its_flag(name: str) -> None:
    text, value = WRITTEN[name]
    assert getattr(load_settings({}, {variable(name): text}), name) == value
    assert getattr(load_settings({name: text}, {}), name) == value
    assert getattr(Settings(), name) != value


def test_the_flag_wins_over_the_variable_and_the_variable_over_the_default() -> None:
    environment = {"XMC_MAX_K": "8", "XMC_PORT": "81", "PATH": "/bin"}
    settings = load_settings({"max_k": "9"}, environment)
    assert (settings.max_k, settings.port, settings.host) == (9, 81, "127.0.0.1")


def test_an_unknown_variable_is_an_error_that_names_the_nearest_known_one() -> None:
    with pytest.raises(SettingsError, match=r"XMC_BATCH_ROWS is unknown; the nearest known one is XMC_MAX_BATCH_ROWS"):
        load_settings({}, {"XMC_BATCH_ROWS": "8"})


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("port", "http", r"XMC_PORT must be a whole number, found 'http'"),
        ("port", "65536", r"XMC_PORT must be between 0 and 65535, found 65536"),
        ("max_k", "0", r"XMC_MAX_K must be at least 1, found 0"),
        ("max_wait_ms", "nan", r"XMC_MAX_WAIT_MS must be between 0 and 1000, found nan"),
        ("drain_seconds", "-1", r"XMC_DRAIN_SECONDS must be between 0 and 3600, found -1"),
        ("device", "gpu", r"XMC_DEVICE must be one of auto, cpu, cuda, found 'gpu'"),
        ("trace_ratio", "1.5", r"XMC_TRACE_RATIO must be between 0 and 1, found 1.5"),
        ("otlp_endpoint", "collector:4318", r"XMC_OTLP_ENDPOINT must be an http:// or https:// address, found 'coll"),
        ("log_queries", "yes", r"XMC_LOG_QUERIES must be one of on, off, found 'yes'"),
        ("log_format", "xml", r"XMC_LOG_FORMAT must be one of console, json, found 'xml'"),
    ],
)
def test_a_wrong_value_is_refused_with_what_was_expected_and_found(name: str, text: str, sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        load_settings({}, {variable(name): text})
    with pytest.raises(SettingsError, match=sentence.replace(variable(name), flag(name))):
        load_settings({name: text}, {})


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(SettingsError, match="XMC_MAX_QUERIES is 65, but must be at most XMC_QUEUE_ROWS, which is 64"):
        load_settings({}, {"XMC_MAX_QUERIES": "65"})
    with pytest.raises(SettingsError, match="XMC_METRICS_PORT and XMC_PORT are both 8000"):
        load_settings({}, {"XMC_METRICS_PORT": "8000"})
    with pytest.raises(SettingsError, match="XMC_GRPC_PORT and XMC_PORT are both 8000"):
        load_settings({}, {"XMC_GRPC_PORT": "8000"})
    with pytest.raises(SettingsError, match="XMC_METRICS_PORT and XMC_GRPC_PORT are both 9"):
        load_settings({}, {"XMC_METRICS_PORT": "9", "XMC_GRPC_PORT": "9"})
    assert load_settings({}, {"XMC_METRICS_PORT": "0", "XMC_GRPC_PORT": "0", "XMC_PORT": "0"}).metrics_port == 0


@pytest.mark.parametrize(
    ("extra", "name", "value", "library"), [("grpc", "grpc_port", "8001", "gRPC"), ("ray", "ray", "auto", "Ray")]
)
def test_what_needs_an_extra_asks_for_it(
    monkeypatch: pytest.MonkeyPatch, extra: str, name: str, value: str, library: str
) -> None:
    monkeypatch.setitem(sys.modules, extra, None)
    with pytest.raises(SettingsError, match=f"{variable(name)} is {value}, but {library} is not installed: expected"):
        load_settings({}, {variable(name): value})
    assert getattr(load_settings({}, {}), name) is None


def test_the_most_replicas_are_no_fewer_than_the_fewest() -> None:
    with pytest.raises(SettingsError, match="XMC_MOST_SHARD_REPLICAS is 1, but must be at least XMC_SHARD_REPLICAS"):
        load_settings({}, {"XMC_MOST_SHARD_REPLICAS": "1", "XMC_SHARD_REPLICAS": "2"})


def test_settings_do_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        Settings().port = 1  # type: ignore[misc]


def test_defaults_have_words() -> None:
    assert default_text("port") == "8000"
    assert default_text("drain_seconds") == "5"
    assert default_text("threads") == "the container's processors"
    assert default_text("runners") == (
        "measured: one a thread where queries are dear, fewer where they are cheap; 1 on a GPU"
    )


def test_every_processor_of_the_container_may_compute() -> None:
    assert Settings().threads == available_processors()


@pytest.mark.parametrize(
    ("given", "threads"),
    [
        ({"threads": 8}, 1),
        ({"threads": 8, "runners": 3}, 2),
        ({"threads": 2, "runners": 4}, 1),
        ({"threads": 8, "device": "cuda"}, 8),
        ({"threads": 8, "device": "cuda", "runners": 2}, 4),
    ],
)
def test_runners_share_the_threads(given: dict[str, Any], threads: int) -> None:
    assert Settings(**given).batch_threads == threads


def test_everything_that_is_wrong_is_found_and_the_rest_is_kept() -> None:
    written = {"XMC_BUNDEL": "a", "XMC_MAX_K": "many", "XMC_QUEUE_ROWS": "8", "XMC_PORT": "9000", "XMC_HOST": "::1"}
    settings, errors = salvage_settings({"metrics_port": "9000", "runners": "0"}, written)
    assert [str(error).split()[:3] for error in errors] == [
        ["the", "environment", "variable"],
        ["XMC_MAX_K", "must", "be"],
        ["--runners", "must", "be"],
        ["XMC_MAX_QUERIES", "is", "64,"],
    ]
    assert settings == Settings(port=9000, host="::1")


def test_what_is_right_is_salvaged_whole() -> None:
    written = {variable(name): text for name, (text, _) in WRITTEN.items()}
    assert salvage_settings({}, written) == (load_settings({}, written), ())
