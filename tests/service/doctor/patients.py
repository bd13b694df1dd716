"""Machines with something wrong, made as really as can be, and doctor as a process that looks at them."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.access.keys import line_of, new_secret
from tests.bundles import Spec, write_bundle

ROOT = Path(__file__).parents[3]
# A port at which nothing listens.
NOBODY = 1
# To root, folders are not closed: without its capabilities it is a user like any other.
AS_USER = ("setpriv", "--bounding-set=-all", "--inh-caps=-all") if os.geteuid() == 0 else ()


@dataclass(frozen=True)
class Diagnosis:
    """What doctor said."""

    code: int
    findings: list[dict[str, Any]]
    errors: str

    @property
    def faults(self) -> list[dict[str, Any]]:
        return [finding for finding in self.findings if finding["state"] == "fault"]


def doctor(
    *flags: str | Path,
    variables: Mapping[str, str] | None = None,
    path: Sequence[Path] | None = None,
    within: Sequence[str] = (),
    folder: Path | None = None,
) -> Diagnosis:
    """``xmc-serve doctor --json`` in a process of its own.

    Args:
        flags: of it.
        variables: of its environment, beside those of this process.
        path: the only folders in which it finds modules, with Python's own; those of this process if None.
        within: the command that starts it.
        folder: that it runs in.
    """
    environment = dict(os.environ) | (variables or {})
    python = [sys.executable, "-m", "service.cli"]
    if path is not None:
        python.insert(1, "-S")
        environment["PYTHONPATH"] = os.pathsep.join(map(str, path))
    command = [*within, *python, "doctor", "--json", *map(str, flags)]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    return Diagnosis(done.returncode, json.loads(done.stdout)["findings"], done.stderr)


def wrong_in_every_setting(tmp_path: Path) -> Diagnosis:
    """Settings, files and ports of somebody who has done everything wrong."""
    file = tmp_path / "file"
    file.write_text("")
    (tmp_path / "models").mkdir()
    good, cut, broken = (tmp_path / "models" / name for name in ("good", "cut", "broken"))
    write_bundle(good)
    shutil.copytree(good, tmp_path / "models" / "copy")
    write_bundle(cut, Spec(name="cut", precision="int8"))
    os.truncate(cut / "encoder.onnx", 10)
    broken.mkdir()
    (broken / "manifest.json").write_text("{}")
    clients, administrators = tmp_path / "clients", tmp_path / "administrators"
    clients.write_text("shop sha256:cut-off")
    administrators.write_text(line_of("root", new_secret(), ()))
    administrators.chmod(0o666)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return doctor(
            *("--max-k", "many", "--queue-rows", "8", "--threads", "1024", "--device", "cuda"),
            *(word for path in (good, tmp_path / "models" / "copy", cut, broken) for word in ("--bundle", path)),
            variables={
                "XMC_BUNDEL": str(good),
                "XMC_PORT_8000_TCP_ADDR": "10.0.0.1",
                "XMC_GRPC_PORT": "tcp://10.0.0.1:8001",
                "XMC_PORT": str(taken.getsockname()[1]),
                "XMC_API_KEYS_FILE": str(clients),
                "XMC_ADMIN_KEYS_FILE": str(administrators),
                "XMC_BUNDLE_KEYS": "",
                "XMC_MODELS_DIR": str(tmp_path / "nowhere"),
                "XMC_RAY": f"127.0.0.1:{NOBODY}",
                "XMC_LABELS_DIR": str(file),
                "XMC_PREDICTION_LOG": str(file / "log"),
                "NUMBA_CACHE_DIR": str(file / "numba"),
                "CUDA_VISIBLE_DEVICES": "-1",
            },
            within=("sh", "-c", 'ulimit -n 256; exec "$@"', "sh"),
        )


def user_without_rights(tmp_path: Path) -> Diagnosis:
    """A user who may read and write little, and sources that are closed to him as an image's are."""
    closed = tmp_path / "closed"
    closed.mkdir()
    bundle = tmp_path / "models" / "tiny"
    write_bundle(bundle)
    (bundle / "encoder.onnx").chmod(0)
    keys = tmp_path / "keys"
    keys.write_text(line_of("shop", new_secret(), ()))
    keys.chmod(0)
    (closed / "tiny.labels.jsonl").write_text('{"journal": 1, "model": "tiny"}\n{"disable": ["a"\n')
    shut = tmp_path / "shut"
    shut.mkdir(mode=0)
    source = tmp_path / "source"
    shutil.copytree(ROOT / "service", source / "service", ignore=shutil.ignore_patterns("__pycache__"))
    folders = [closed, *(folder for folder in source.rglob("*") if folder.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    try:
        return doctor(
            *("--bundle", bundle, "--port", "0", "--api-keys-file", keys, "--labels-dir", closed),
            *("--models-dir", shut, "--prediction-log", closed / "log"),
            variables={
                "NUMBA_CACHE_DIR": "",
                "HOME": str(closed),
                "XDG_CACHE_HOME": str(closed),
                "PYTHONDONTWRITEBYTECODE": "1",
            },
            path=[source, Path(sysconfig.get_path("purelib"))],
            within=AS_USER,
            folder=tmp_path,
        )
    finally:
        for folder in (*folders, shut):
            folder.chmod(0o755)


def spoilt_environment(tmp_path: Path) -> Diagnosis:
    """An environment with wheels that clash, packages that are missing or too old, and libraries that do not load."""
    site = environment_without(tmp_path / "site", "opentelemetry", "cryptography", "pyarrow", "grpc")
    for name, module in (("onnxruntime-gpu", "onnxruntime"), ("faiss-gpu-cu12", "faiss"), ("service", "service")):
        install(site, name, "1.0", f"{module}/__init__.py")
    for entry in site.glob("pydantic_core-*"):
        entry.unlink()
    install(site, "pydantic-core", "0.1", "pydantic_core/__init__.py")
    replace(site, "tokenizers", "raise ImportError('version GLIBC_9.9 not found')")
    replace(site, "httptools", "import os, signal\nos.kill(os.getpid(), signal.SIGILL)")
    foreign = tmp_path / "foreign"
    (foreign / "service").mkdir(parents=True)
    (foreign / "service" / "__init__.py").write_text(
        "from pkgutil import extend_path\n__path__ = extend_path(__path__, __name__)\n"
    )
    key = tmp_path / "release.pub"
    key.write_text("none")
    return doctor(
        *("--port", "0", "--grpc-port", "0", "--otlp-endpoint", "http://localhost:4318", "--bundle-key", key),
        *("--prediction-log", tmp_path / "log"),
        variables={"NUMBA_CACHE_DIR": str(tmp_path / "numba")},
        path=[foreign, ROOT, site],
        folder=tmp_path,
    )


def no_packages(tmp_path: Path) -> Diagnosis:
    """The source, and Python alone."""
    write_bundle(tmp_path / "models" / "tiny")
    return doctor(
        *("--bundle", tmp_path / "models" / "tiny", "--port", "0", "--device", "cuda"),
        variables={"NUMBA_CACHE_DIR": str(tmp_path / "numba")},
        path=[ROOT],
        folder=tmp_path,
    )


def environment_without(site: Path, *prefixes: str) -> Path:
    """The installed packages but those whose files begin with one of the prefixes, as links."""
    site.mkdir()
    for kind in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for entry in Path(kind).iterdir():
            if not entry.name.startswith(prefixes):
                (site / entry.name).symlink_to(entry)
    return site


def install(site: Path, name: str, version: str, *files: str) -> None:
    """What a wheel leaves behind when it has overwritten another's files."""
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in files))


def replace(site: Path, module: str, source: str) -> None:
    """A module that does something else when it is imported."""
    (site / module).unlink()
    (site / module).mkdir()
    (site / module / "__init__.py").write_text(source)
