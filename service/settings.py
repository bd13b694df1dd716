"""Every setting of the service: one frozen dataclass that is also the table behind the flags and the documentation.

A value comes from the command line, else from its ``XMC_*`` variable, else from its default. This is the only module
that knows the names of the variables; whoever starts the service passes the environment in.
"""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from importlib.util import find_spec
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_type_hints
from urllib.parse import urlsplit

from service.errors import SettingsError
from service.processors import available_processors

PREFIX = "XMC_"

Device = Literal["auto", "cpu", "cuda"]
LogFormat = Literal["json", "console"]
AccessLogging = Literal["off", "errors", "all"]


_SWITCH = {"on": True, "off": False}


@dataclass(frozen=True)
class Option:
    """How one setting is written, read and explained.

    Attributes:
        parse: turns the written text into the value; raises ValueError or LookupError when it cannot.
        summary: one sentence for ``--help`` and the table in ``service/README.md``.
        expected: the words of an error message for what `parse` takes.
        minimum: smallest value, for numbers.
        maximum: largest value, for numbers.
        choices: the only values, for words.
        default: the default in words, where the plain value would not say it.
        flag: the command-line flag, where it is not the name of the setting.
        repeated: whether the flag is given once for each part of the value.
    """

    parse: Callable[[str], Any]
    summary: str
    expected: str
    minimum: float = -math.inf
    maximum: float = math.inf
    choices: tuple[str, ...] = ()
    default: str = ""
    flag: str = ""
    repeated: bool = False


def _paths(text: str) -> tuple[Path, ...]:
    return tuple(Path(part) for part in text.split(os.pathsep) if part)


def _address(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError
    return text


def _whole(summary: str, minimum: float, maximum: float = math.inf, *, default: str = "") -> Option:
    return Option(int, summary, "a whole number", minimum, maximum, default=default)


def _number(summary: str, maximum: float, minimum: float = 0.0) -> Option:
    return Option(float, summary, "a number", minimum, maximum)


def _file(summary: str, default: str) -> Option:
    return Option(Path, summary, "a file", default=default)


def _word(summary: str, *choices: str) -> Option:
    return Option(str, summary, "one of " + ", ".join(choices), choices=choices)


def _switch(summary: str) -> Option:
    return Option(_SWITCH.__getitem__, summary, "one of " + ", ".join(_SWITCH))


_BUNDLES = Option(
    _paths,
    f"Bundle folders to serve, separated by '{os.pathsep}' in the variable; the flag is repeated instead.",
    "folders",
    default="none: required",
    flag="--bundle",
    repeated=True,
)
_BUNDLE_KEYS = Option(
    _paths,
    f"Public keys (PEM), one of which must have signed a bundle; separated by '{os.pathsep}', or the flag repeated.",
    "files",
    default="none: unsigned too",
    flag="--bundle-key",
    repeated=True,
)


@dataclass(frozen=True)
class Settings:
    """The settings of one serving process; build it with `load_settings`."""

    bundles: Annotated[tuple[Path, ...], _BUNDLES] = ()
    models_dir: Annotated[
        Path | None,
        Option(
            Path,
            "Folder whose bundles POST /admin/models may load while the service runs.",
            "a folder",
            default="none: it may load none",
        ),
    ] = None
    labels_dir: Annotated[
        Path | None,
        Option(
            Path,
            "Folder for the journals of labels that are disabled or added while the service runs.",
            "a folder",
            default="beside the bundle",
        ),
    ] = None
    bundle_keys: Annotated[tuple[Path, ...], _BUNDLE_KEYS] = ()
    device: Annotated[
        Device, _word("Where models run; cuda without a CUDA device is an error.", "auto", "cpu", "cuda")
    ] = "auto"
    host: Annotated[str, Option(str, "Address to listen on.", "an address")] = "127.0.0.1"
    port: Annotated[int, _whole("Port to listen on; 0 takes a free one.", 0, 65535)] = 8000
    metrics_port: Annotated[
        int | None, _whole("A second port for /metrics alone; 0 takes a free one.", 0, 65535, default="none")
    ] = None
    grpc_port: Annotated[
        int | None,
        _whole(
            "A port for the Open Inference Protocol over gRPC, with the extra grpc; 0 takes a free one.",
            0,
            65535,
            default="none",
        ),
    ] = None
    max_batch_rows: Annotated[
        int | None, _whole("Most queries in one batch.", 1, default="32 on a CPU, 128 on a GPU")
    ] = None
    max_batch_tokens: Annotated[
        int, _whole("Most tokens in one batch, padding included; one longer query runs alone.", 1)
    ] = 16384
    max_wait_ms: Annotated[float, _number("How long a free model waits for more queries; 0 starts at once.", 1000)] = (
        0.0
    )
    queue_rows: Annotated[
        int, _whole("Most queries that wait for one model; beyond it requests are refused with 429.", 1)
    ] = 64
    max_k: Annotated[int, _whole("Most labels a request may ask for.", 1)] = 100
    max_queries: Annotated[int, _whole("Most queries in one request; at most the queue's rows.", 1)] = 64
    max_query_chars: Annotated[int, _whole("Most characters in one text.", 1)] = 50_000
    max_features: Annotated[int, _whole("Most features in one sparse query.", 1)] = 16384
    max_body_bytes: Annotated[int, _whole("Most bytes in the body of a request.", 1)] = 1 << 20
    request_seconds: Annotated[
        float, _number("How long a request may take from its first byte to its last.", 3600, minimum=0.01)
    ] = 30.0
    threads: Annotated[
        int,
        _whole("Threads that compute for one model.", 1, 1024, default="the container's processors"),
    ] = field(default_factory=available_processors)
    runners: Annotated[
        int | None,
        _whole(
            "Batches that one model computes at once, each on its share of the threads.",
            1,
            1024,
            default="measured: one a thread where queries are dear, fewer where they are cheap; 1 on a GPU",
        ),
    ] = None
    ray: Annotated[
        str | None,
        Option(
            str,
            "Ray cluster that searches the shards of bundles that are cut into some, with the extra ray: local, auto "
            "or HOST:PORT.",
            "an address",
            default="none: this process",
        ),
    ] = None
    shard_replicas: Annotated[int, _whole("Replicas of each shard on Ray, at least.", 1, 1000)] = 1
    most_shard_replicas: Annotated[
        int | None, _whole("Replicas of each shard on Ray, at most, where rows wait.", 1, 1000, default="no more")
    ] = None
    shard_threads: Annotated[int, _whole("Processors that each replica of a shard takes, and uses.", 1, 1024)] = 1
    drain_seconds: Annotated[
        float, _number("How long answers go on after SIGTERM, so that load balancers notice.", 3600)
    ] = 5.0
    api_keys_file: Annotated[
        Path | None, _file("Keys that clients need, one a line; it is read again when it changes.", "none: open to all")
    ] = None
    admin_keys_file: Annotated[
        Path | None, _file("Keys that open /admin, one a line; it is read again when it changes.", "none: closed")
    ] = None
    log_format: Annotated[
        LogFormat, _word("One readable line or one JSON object for each event.", "console", "json")
    ] = "console"
    access_log: Annotated[
        AccessLogging,
        _word("Which requests have a line in the log: none, those refused or failed, or all.", "off", "errors", "all"),
    ] = "errors"
    log_queries: Annotated[bool, _switch("Whether these lines hold what was asked.")] = False
    otlp_endpoint: Annotated[
        str | None,
        Option(
            _address,
            "Collector of OpenTelemetry traces, without the path.",
            "an http:// or https:// address",
            default="none: no traces",
        ),
    ] = None
    trace_ratio: Annotated[
        float, _number("Share of requests that are traced, where their clients leave it open.", 1)
    ] = 0.01
    prediction_log: Annotated[
        Path | None,
        Option(
            Path, "Folder for a log of queries and their answers, as Parquet.", "a folder", default="none: no such log"
        ),
    ] = None
    prediction_log_sample: Annotated[float, _number("Share of requests that are in the prediction log.", 1)] = 1.0

    @property
    def batch_threads(self) -> int:
        """Threads that compute one batch: a share where the runners are given, else one, or all beside a GPU."""
        runners = self.runners or (1 if self.device == "cuda" else self.threads)
        return max(1, self.threads // runners)

    def __post_init__(self) -> None:
        if self.max_queries > self.queue_rows:
            raise SettingsError(
                f"{variable('max_queries')} is {self.max_queries}, but must be at most {variable('queue_rows')}, "
                f"which is {self.queue_rows}: such a request could never be taken"
            )
        for one, other in combinations(("metrics_port", "grpc_port", "port"), 2):
            port: int | None = getattr(self, one)
            if port and port == getattr(self, other):
                raise SettingsError(f"{variable(one)} and {variable(other)} are both {port}: they must differ")
        if self.most_shard_replicas is not None and self.most_shard_replicas < self.shard_replicas:
            raise SettingsError(
                f"{variable('most_shard_replicas')} is {self.most_shard_replicas}, but must be at least "
                f"{variable('shard_replicas')}, which is {self.shard_replicas}"
            )
        for name, library, extra in (("grpc_port", "gRPC", "grpc"), ("ray", "Ray", "ray")):
            if (value := getattr(self, name)) is not None and find_spec(extra) is None:
                raise SettingsError(
                    f"{variable(name)} is {value}, but {library} is not installed: expected the extra {extra}, "
                    f"as in pip install '.[serve,cpu,{extra}]'"
                )


def options() -> dict[str, Option]:
    """The options of `Settings` by field name, in order of declaration."""
    hints = get_type_hints(Settings, include_extras=True)
    return {item.name: hints[item.name].__metadata__[0] for item in fields(Settings)}


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + name.upper()


def flag(name: str) -> str:
    """The command-line flag of a setting."""
    return options()[name].flag or "--" + name.replace("_", "-")


def default_text(name: str) -> str:
    """The default of a setting as the help and the documentation write it."""
    option = options()[name]
    if option.default:
        return option.default
    value = next(item.default for item in fields(Settings) if item.name == name)
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)


def load_settings(flags: Mapping[str, str], environment: Mapping[str, str]) -> Settings:
    """Settings from the command line, the environment and the defaults, in this order.

    Args:
        flags: text given on the command line, by field name; several bundles joined as in the variable.
        environment: the process's variables; those that do not begin with ``XMC_`` are ignored.

    Raises:
        SettingsError: a value is not of its kind or out of range, or a variable is unknown.
    """
    values, errors = _read_all(flags, environment)
    if errors:
        raise errors[0]
    return Settings(**values)


def salvage_settings(
    flags: Mapping[str, str], environment: Mapping[str, str]
) -> tuple[Settings, tuple[SettingsError, ...]]:
    """The same without stopping at an error: for whoever looks for all that is wrong, and serves nothing.

    Returns:
        Settings, with the default where a value is wrong or does not go with those declared before it; and what
        `load_settings` would raise for each variable and value, and for the first two values that do not go together.
    """
    values, errors = _read_all(flags, environment)
    try:
        return Settings(**values), tuple(errors)
    except SettingsError as error:
        errors.append(error)
    settings = Settings()
    for name, value in values.items():
        with suppress(SettingsError):
            settings = replace(settings, **{name: value})
    return settings, tuple(errors)


def _read_all(flags: Mapping[str, str], environment: Mapping[str, str]) -> tuple[dict[str, Any], list[SettingsError]]:
    """Every value that can be read, in order of declaration, and what is wrong with the others."""
    known = {variable(name): name for name in options()}
    errors = []
    for written in environment:
        if written.startswith(PREFIX) and written not in known:
            nearest = difflib.get_close_matches(written, known, n=1, cutoff=0.0)[0]
            errors.append(
                SettingsError(f"the environment variable {written} is unknown; the nearest known one is {nearest}")
            )
    values: dict[str, Any] = {}
    for name, option in options().items():
        try:
            if name in flags:
                values[name] = _read(option, flags[name], flag(name))
            elif variable(name) in environment:
                values[name] = _read(option, environment[variable(name)], variable(name))
        except SettingsError as error:
            errors.append(error)
    return values, errors


def _read(option: Option, text: str, written: str) -> object:
    """The value of one written setting."""
    try:
        value = option.parse(text)
    except (ValueError, LookupError):
        raise SettingsError(f"{written} must be {option.expected}, found {text!r}") from None
    if option.choices and value not in option.choices:
        raise SettingsError(f"{written} must be {option.expected}, found {text!r}")
    if isinstance(value, int | float) and not option.minimum <= value <= option.maximum:
        bounds = f"at least {option.minimum:g}"
        if option.maximum < math.inf:
            bounds = f"between {option.minimum:g} and {option.maximum:g}"
        raise SettingsError(f"{written} must be {bounds}, found {text}")
    return cast(object, value)
