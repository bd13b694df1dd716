"""Faults that were planted, and what doctor says of each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from service.doctor.examination import CHECKS
from tests.service.doctor.patients import (
    Diagnosis,
    no_packages,
    spoilt_environment,
    user_without_rights,
    wrong_in_every_setting,
)


class Planted(NamedTuple):
    """One fault: which check names it, in which words, and what it says to do."""

    check: str
    found: str
    advice: str


FAULTS: dict[Callable[[Path], Diagnosis], list[Planted]] = {
    wrong_in_every_setting: [
        Planted("settings", "XMC_BUNDEL is unknown; the nearest known one is XMC_BUNDLES", "correct the name"),
        Planted("settings", "XMC_PORT_8000_TCP_ADDR is unknown", "enableServiceLinks: false"),
        Planted("settings", "XMC_GRPC_PORT must be a whole number, found 'tcp://10.0.0.1:8001'", "enableServiceLinks"),
        Planted("settings", "--max-k must be a whole number, found 'many'", "xmc-serve run --help"),
        Planted("settings", "XMC_MAX_QUERIES is 64, but must be at most XMC_QUEUE_ROWS, which is 8", "correct the"),
        Planted("cuda", "cuda: expected", "or set XMC_DEVICE to cpu"),
        Planted("processors", "the processors that may be used at once, found 1024", "unset XMC_THREADS"),
        Planted("bundles", "is given twice, first as ", "name it once"),
        Planted("bundles", "encoder.onnx has 10 bytes instead of ", "copy the bundle again"),
        Planted("bundles", "found int8, whose products run on the CPU alone", "export it with --precision fp16"),
        Planted("bundles", "broken/manifest.json: expected schema_version 1, found None", "export it again"),
        Planted("cluster", "expected a Ray cluster at 127.0.0.1:1, found: [Errno 111]", "ray start --head"),
        Planted(
            "labels", "expected a folder that may be written to, found: Not a directory", "a volume of this replica"
        ),
        Planted("folders", "expected a folder that may be listed, found: No such file or directory", "mount it where"),
        Planted("folders", "file: Not a directory", "name a folder that the server's user may write to"),
        Planted("kernels", "file: Not a directory", "set NUMBA_CACHE_DIR to a folder"),
        Planted("keys", "line 1: expected a line 'NAME sha256:DIGEST", "the line that xmc-serve key NAME prints"),
        Planted("keys", "mode 0666: others may put their keys there", "chmod go-w"),
        Planted("ports", "in use by process ", "end it, or set XMC_PORT to a free port"),
        Planted("descriptors", "expected a hard limit of at least 1,024, found 256", "--ulimit nofile=65536"),
    ],
    user_without_rights: [
        Planted("bundles", "encoder.onnx may not be read", "xmc-serve check"),
        Planted("keys", "expected a readable file of keys, found: [Errno 13] Permission denied", "may read it"),
        Planted("labels", "expected a folder that may be written to, found: Permission denied", "a volume of this"),
        Planted("labels", "tiny.labels.jsonl:2: expected a change of labels", "bring it back from a copy"),
        Planted("folders", "expected a folder that may be listed, found: Permission denied", "mount it where"),
        Planted("folders", "closed: Permission denied", "name a folder that the server's user may write to"),
        Planted("kernels", "found no place to keep kernels", "set NUMBA_CACHE_DIR to a folder"),
    ],
    spoilt_environment: [
        Planted("settings", "but gRPC is not installed", "install the extra"),
        Planted("module", "found that it begins with ", "foreign from the path"),
        Planted("wheels", "found onnxruntime and onnxruntime-gpu", "pip uninstall --yes onnxruntime onnxruntime-gpu"),
        Planted("wheels", "found faiss-cpu and faiss-gpu-cu12", "pip uninstall --yes faiss-cpu faiss-gpu-cu12"),
        Planted("wheels", "found service", "pip uninstall --yes service, then install xmcserve again"),
        Planted("packages", "which XMC_OTLP_ENDPOINT needs, expected opentelemetry-sdk, found none", ".[otel]"),
        Planted("packages", "which XMC_BUNDLE_KEYS needs, expected cryptography, found none", ".[signing]"),
        Planted("packages", "which XMC_PREDICTION_LOG needs, expected pyarrow, found none", ".[predictions]"),
        Planted("packages", "pydantic expected pydantic-core==", "pip install -c constraints.txt 'pydantic-core=="),
        Planted("libraries", "cannot be imported: ImportError: version GLIBC_9.9 not found", "--force-reinstall"),
        Planted("libraries", "cannot be imported: the process ended by SIGILL", "--force-reinstall"),
        Planted("keys", "signatures are checked with cryptography", "install the extra signing"),
    ],
    no_packages: [
        Planted("packages", "expected it to be installed, found only its source", "pip install"),
        Planted("libraries", "cannot be imported: ModuleNotFoundError: No module named 'onnxruntime'", "reinstall"),
        Planted("libraries", "cannot be imported: ModuleNotFoundError: No module named 'faiss'", "reinstall"),
        Planted("cuda", "No module named 'onnxruntime'", "see what else is named"),
        Planted(
            "bundles", "could not look: ModuleNotFoundError: No module named 'numpy'", "mend what other checks name"
        ),
        Planted("labels", "could not look: ModuleNotFoundError", "mend what other checks name"),
    ],
}


@pytest.mark.parametrize("patient", FAULTS, ids=lambda patient: patient.__name__)
def test_every_planted_fault_is_named_and_no_other(patient: Callable[[Path], Diagnosis], tmp_path: Path) -> None:
    diagnosis = patient(tmp_path)
    assert (diagnosis.code, diagnosis.errors) == (1, "")
    unnamed = [
        planted
        for planted in FAULTS[patient]
        if not any(
            fault["check"] == planted.check and planted.found in fault["found"] and planted.advice in fault["advice"]
            for fault in diagnosis.faults
        )
    ]
    assert unnamed == [], diagnosis.faults
    checks = {planted.check for planted in FAULTS[patient]}
    assert [fault for fault in diagnosis.faults if fault["check"] not in checks] == []


def test_faults_of_every_check_were_planted() -> None:
    """That of memory, which needs a control group, in `test_container`."""
    planted = {fault.check for faults in FAULTS.values() for fault in faults}
    assert planted | {"memory"} == {check.name for check in CHECKS}
