from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from service import cli, threads
from service.access.keyfile import KeyFile
from service.access.keys import Role
from service.settings import flag, options
from tests.bundles import Spec, write_bundle
from tests.service.serving import running


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundles") / "tiny"
    write_bundle(path, Spec(name="tiny", has_label_texts=False))
    return path


@pytest.fixture(autouse=True)
def _thread_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command changes the environment; each test gets it back."""
    for name in (*threads.THREAD_VARIABLES, "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, os.environ.get(name, "PASSIVE" if "POLICY" in name else "1"))


def test_check_says_what_a_good_bundle_is(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", str(bundle), "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    for words in ("is good", "mach, fp32, text in", "40, without texts", "3 queries answered as at export", "cpu ("):
        assert words in printed


def test_check_times_single_queries(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "latency.json"
    assert cli.main(["check", str(bundle), "--device", "cpu", "--time", "5", "--json", str(file)]) == 0
    assert re.search(r"one query  p50 \d+\.\d\d ms, p99 \d+\.\d\d ms for 5 labels", capsys.readouterr().out)
    assert json.loads(file.read_text())["queries"] == 5


def test_latencies_cannot_be_written_without_being_taken(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["check", str(bundle), "--json", str(tmp_path / "latency.json")]) == 2
    assert "expected --time N beside it" in capsys.readouterr().err


def test_check_names_the_fault_of_a_bad_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_bundle(tmp_path / "bad")
    with (tmp_path / "bad" / "encoder.onnx").open("ab") as file:
        file.write(b"x")
    assert cli.main(["check", str(tmp_path / "bad")]) == 1
    assert "xmc-serve: " in (message := capsys.readouterr().err)
    assert "encoder.onnx" in message


def test_run_without_a_bundle_is_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run"]) == 2
    assert "expected --bundle or XMC_BUNDLES" in capsys.readouterr().err


def test_run_refuses_wrong_settings(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "--max-k", "many"]) == 2
    assert "--max-k must be a whole number, found 'many'" in capsys.readouterr().err
    monkeypatch.setenv("XMC_BUNDEL", "x")
    assert cli.main(["run"]) == 2
    assert "the nearest known one is XMC_BUNDLES" in capsys.readouterr().err


def test_every_setting_is_a_flag_of_run(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main(["run", "--help"])
    printed = capsys.readouterr().out
    assert all(flag(name) in printed for name in options())


def test_a_key_is_made_with_its_line_for_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["key", "shop", "--read-only", "--rate", "2.5", "--burst", "9"]) == 0
    secret, _, line = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"shop sha256:[0-9a-f]{64} read-only rate=2.5 burst=9", line)
    (tmp_path / "keys").write_text(line)
    found = KeyFile(tmp_path / "keys", Role.PREDICT).find(secret.rpartition(" ")[2].encode(), 0.0)
    assert found is not None
    assert (found.name, found.role, found.rate, found.burst) == ("shop", Role.READ, 2.5, 9.0)


def test_a_key_that_no_file_may_hold_is_not_made(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["key", "shop", "--rate", "fast"]) == 2
    printed = capsys.readouterr()
    assert "rate=QUERIES_PER_SECOND" in printed.err
    assert printed.out == ""


def test_a_file_without_keys_ends_the_start(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("# nobody yet\n")
    command = [sys.executable, "-m", "service.cli", "run", "--bundle", bundle, "--port", "0"]
    done = subprocess.run([*command, "--api-keys-file", tmp_path / "keys"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "keys: expected a line 'NAME sha256:DIGEST" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["fly"],
        ["check"],
        ["check", "x", "--time", "0"],
        ["check", "x", "--time", "1,2"],
        ["bench", "http://x", "--concurrency", "0"],
    ],
)
def test_wrong_use_is_explained(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(arguments)
    assert "usage: xmc-serve" in capsys.readouterr().err


def test_the_flag_is_repeated_for_several_bundles_and_drain_is_a_setting(bundle: Path, tmp_path: Path) -> None:
    write_bundle(tmp_path / "other", Spec(name="other"))
    with running("--bundle", bundle, "--bundle", tmp_path / "other", "--drain-seconds", "0") as process:
        loaded = [line["message"] for line in process.log if line["message"].startswith("loaded ")]
        assert process.stop(signal.SIGTERM) == 0
    assert [line.split()[1].split(":")[0] for line in loaded] == ["tiny", "other"]


def test_numerical_libraries_get_the_threads_of_the_settings_before_they_are_imported() -> None:
    program = (
        "import json, os, sys\n"
        "from service import cli, threads\n"
        "loaded = [name for name in ('numpy', 'onnxruntime', 'faiss', 'tokenizers') if name in sys.modules]\n"
        "os.environ['OMP_NUM_THREADS'] = '7'\n"
        "threads.limit_threads(3)\n"
        "print(json.dumps([loaded, [os.environ[name] for name in threads.THREAD_VARIABLES]]))\n"
    )
    environment = {name: value for name, value in os.environ.items() if name not in threads.THREAD_VARIABLES}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [[], ["7", "3", "3", "3"]]
