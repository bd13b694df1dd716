"""A healthy machine, a server that runs, checks that fail themselves, and how findings are told."""

from __future__ import annotations

import errno
import json
import os
import socket
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import faiss
import pytest

from model_export.signing import make_keys, sign
from service import cli
from service.access.keys import line_of, new_secret
from service.doctor import child, folders, kernels, keys, labels, ports, settings
from service.doctor.child import ask
from service.doctor.context import Context
from service.doctor.examination import Check, Examined, examine, is_healthy
from service.doctor.findings import Finding, State, fault, note, ok
from service.doctor.listeners import find_listener
from service.doctor.probes import find_cache
from service.doctor.report import as_json, as_table
from tests.bundles import write_bundle
from tests.service.doctor.patients import doctor
from tests.service.serving import running


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundles") / "tiny"
    write_bundle(path)
    return path


def test_a_healthy_machine_has_no_fault(bundle: Path, tmp_path: Path) -> None:
    """Whatever a setting asks for is there."""
    key_file = tmp_path / "keys"
    key_file.write_text(line_of("shop", new_secret(), ()))
    key_file.chmod(0o640)
    make_keys(tmp_path / "release.key", tmp_path / "release.pub")
    sign(bundle, tmp_path / "release.key")
    (tmp_path / "labels").mkdir()
    diagnosis = doctor(
        *("--bundle", bundle, "--bundle-key", tmp_path / "release.pub", "--port", "0", "--metrics-port", "0"),
        *("--api-keys-file", key_file, "--admin-keys-file", key_file, "--models-dir", bundle.parent),
        *("--labels-dir", tmp_path / "labels", "--prediction-log", tmp_path / "log", "--grpc-port", "0"),
        *("--otlp-endpoint", "http://127.0.0.1:4318"),
    )
    assert (diagnosis.code, diagnosis.errors, diagnosis.faults) == (0, "", [])
    found = {finding["subject"]: finding["found"] for finding in diagnosis.findings}
    assert "mach, 40 labels" in found[str(bundle)]
    assert found[str(bundle)].endswith("signed")
    assert "CPUExecutionProvider" in found["onnxruntime"]
    assert found["faiss"] == f"{version('faiss-cpu')}: {faiss.get_compile_options().strip()}"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["keys", "labels", "release.key", "release.pub"]


def test_the_server_that_runs_is_no_fault_of_its_port(bundle: Path) -> None:
    with running("--bundle", bundle) as server:
        (found,) = ports.look(Context.of({"port": str(server.port)}, {}))
        assert found.state is State.NOTE
        assert found.found == f"xmc-serve listens there: process {server.process.pid}"


def test_who_listens_on_a_port_is_found() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        listener = find_listener(port)
        assert listener is not None
        assert listener.pid == os.getpid()
        assert any("python" in word or "pytest" in word for word in listener.command)
    assert find_listener(port) is None


@pytest.mark.parametrize(
    ("host", "found", "advice"),
    [
        ("192.0.2.1", "Cannot assign requested address", "set XMC_HOST to an address of this machine"),
        ("::1%nowhere", "expected an address, found ::1%nowhere", "or 0.0.0.0 for all"),
    ],
)
def test_an_address_that_is_not_here_is_named(host: str, found: str, advice: str) -> None:
    (finding,) = ports.look(Context.of({"host": host, "port": "0"}, {}))
    assert finding.state is State.FAULT
    assert found in finding.found
    assert advice in finding.advice


def test_a_port_that_is_not_for_this_user_is_named() -> None:
    finding = ports._refused("XMC_PORT", "port", 80, PermissionError(errno.EACCES, "Permission denied"))
    assert (finding.state, finding.advice) == (State.FAULT, "set XMC_PORT to a port above 1023")


def test_a_port_of_another_user_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "find_listener", lambda port: None)
    finding = ports._refused("XMC_PORT", "port", 80, OSError(errno.EADDRINUSE, "Address already in use"))
    assert finding.found == "in use by another user's process"


def test_nowhere_for_temporary_files_is_a_fault(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(tmp_path / "file")])
    *_, finding = folders.look(Context.of({}, {}))
    assert finding.state is State.FAULT
    assert "--tmpfs /tmp" in finding.advice


def test_hashes_that_everybody_may_read_are_a_note(tmp_path: Path) -> None:
    """As in a secret of Kubernetes, unless it says otherwise: nobody learns a key."""
    file = tmp_path / "keys"
    file.write_text(line_of("shop", new_secret(), ()))
    file.chmod(0o644)
    first, _ = keys.look(Context.of({"api_keys_file": str(file)}, {}))
    assert first.state is State.NOTE
    assert f"chmod o-r {file}" in first.advice


def test_labels_that_cannot_be_changed_are_a_note_to_administrators_alone(tmp_path: Path) -> None:
    models = tmp_path / "file" / "tiny"
    models.parent.write_text("")
    (found,) = labels.look(Context.of({"bundles": str(models), "admin_keys_file": "keys"}, {}))
    assert found.state is State.NOTE
    assert "refused with 507" in found.found
    assert list(labels.look(Context.of({"bundles": str(models)}, {}))) == []


def test_kernels_are_found_where_a_server_would_have_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, kept = tmp_path / "numba", tmp_path / "kept"
    context = Context.of({}, {"NUMBA_CACHE_DIR": str(place)})
    monkeypatch.setattr(kernels, "FOLDER", kept)
    (found,) = kernels.look(context)
    assert (found.state, found.found) == (State.NOTE, "no kernels yet")
    kept.mkdir()
    (kept / "one.nbi").write_text("")
    (found,) = kernels.look(context)
    assert (found.state, found.found) == (State.OK, f"a server copies kernels to it: 1, from {kept}")
    place.mkdir()
    (found,) = kernels.look(context)
    assert (found.state, found.found) == (State.NOTE, f"{place}: no kernels yet")
    assert list(place.iterdir()) == []
    (place / "two.nbi").write_text("")
    (found,) = kernels.look(context)
    assert (found.state, found.found) == (State.OK, f"kernels in {place}: 1")


def test_numba_says_itself_where_it_keeps_kernels() -> None:
    answers, end = ask(find_cache)
    assert end is None
    assert Path(answers[0]).is_dir()


def test_a_process_that_hangs_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "MOST_SECONDS", 0)
    assert ask(find_cache) == ([], "did not end in 0 s")


@pytest.mark.parametrize(
    "variables",
    [{"XMC_SERVICE_HOST": "10.0.0.1"}, {"XMC_PORT": "tcp://10.0.0.1:80"}, {"XMC_METRICS_PORT": "tcp://10.0.0.1:9090"}],
)
def test_variables_of_kubernetes_are_told_from_slips(variables: dict[str, str]) -> None:
    (found,) = settings.look(Context.of({}, variables))
    assert "enableServiceLinks: false" in found.advice
    (other,) = settings.look(Context.of({"otlp_endpoint": "tcp://10.0.0.1:4318"}, {}))
    assert "correct the value" in other.advice


def test_a_check_that_fails_itself_is_a_fault_and_the_others_go_on() -> None:
    def crash(_: Context) -> Iterator[Finding]:
        yield ok("first", "good")
        raise RuntimeError("of\nall things")

    checks = [Check("broken", "", "", crash), Check("whole", "", "", lambda _: [note("second", "good")])]
    broken, whole = examine(Context.of({}, {}), checks)
    assert broken.findings[0] == ok("first", "good")
    assert broken.findings[1].state is State.FAULT
    assert broken.findings[1].found == "could not look: RuntimeError: of\nall things"
    assert whole.findings == (note("second", "good"),)
    assert not is_healthy([broken, whole])
    assert is_healthy([whole])


EXAMINED = [
    Examined(Check("short", "", "", lambda _: []), (ok("a", "fine"), note("longer", "so so", "perhaps"))),
    Examined(Check("lengthy", "", "", lambda _: []), (fault("b", "bad\n  indeed", "mend it"),)),
]


def test_the_table_is_aligned_and_says_what_to_do() -> None:
    assert as_table(EXAMINED).splitlines() == [
        "ok     short    a       fine",
        "note   short    longer  so so",
        "                        -> perhaps",
        "FAULT  lengthy  b       bad indeed",
        "                        -> mend it",
        "",
        "1 fault, 1 note",
    ]
    assert as_table([]).endswith("no faults, no notes\n")


def test_json_holds_the_same() -> None:
    content = json.loads(as_json(EXAMINED))
    assert (content["faults"], content["notes"], len(content["findings"])) == (1, 1, 3)
    assert content["findings"][2] == {
        "check": "lengthy",
        "subject": "b",
        "found": "bad\n  indeed",
        "state": "fault",
        "advice": "mend it",
    }


@pytest.mark.parametrize("is_json", [False, True])
def test_the_command_prints_either_and_ends_with_1_for_a_fault(
    is_json: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("service.doctor.examination.examine", lambda context: EXAMINED)
    assert cli.main(["doctor", *["--json"] * is_json]) == 1
    assert capsys.readouterr().out == (as_json if is_json else as_table)(EXAMINED)
    monkeypatch.setattr("service.doctor.examination.examine", lambda context: [])
    assert cli.main(["doctor"]) == 0
