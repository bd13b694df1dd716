"""The command line: exit codes, sentences, and every option seen in what it writes."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from model_export import leading, writer
from model_export.cli import main
from service.bundle import layout
from service.bundle.reader import read_manifest
from service.measuring import chart
from tests.artifacts import Workshop
from training.artifact import read_artifact


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    code = main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("xmc-export: ")
    assert err.count("\n") == 1
    return code, err


def test_an_exact_index_is_called_so(workshop: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", str(workshop.artifact("unidec")), "--out", str(tmp_path / "bundle")]) == 0
    assert "  index      flat, exact" in capsys.readouterr().out.splitlines()


def test_leading_coordinates_are_counted(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seven = "model_export.exporters.search.choose_leading"
    monkeypatch.setattr(seven, lambda vectors_LD, *_: leading.leading_of(vectors_LD, 7))
    assert main(["build", str(workshop.artifact("unidec")), "--out", str(tmp_path / "bundle")]) == 0
    assert "  index      flat, exact, by 7 leading coordinates" in capsys.readouterr().out.splitlines()


def test_build_writes_and_says_what(workshop: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    artifact, out = workshop.artifact("unidec"), tmp_path / "bundle"
    arguments = ["--out", str(out), "--precision", "int8", "--index", "ivf", "--recall", "0.9", "--name", "labels-8"]
    assert main(["build", str(artifact), *arguments]) == 0
    manifest = read_manifest(out)
    printed = capsys.readouterr().out.splitlines()
    assert printed[:2] == [f"wrote {out}", f"labels-8:{manifest.version}"]
    assert "  method     unidec, int8, text in" in printed
    assert f"  labels     {manifest.label_count:,}" in printed
    assert any(line.startswith("  index      ivf, recall@100 ") for line in printed)
    assert any(line.startswith("  serves     calibrated scores (from rank 1 ") for line in printed)
    assert "  golden     8 queries answered" in printed
    said = r"^  compared   (\d+) samples with the trained model(?:, (\d+) left out as ties)?$"
    (counts,) = re.findall(said, "\n".join(printed), re.MULTILINE)
    assert sum(int(count or 0) for count in counts) == len(read_artifact(artifact).samples)
    assert any(line.startswith("  scores     differ by ") for line in printed)
    assert any(line.startswith("  top 5      equal for ") for line in printed)
    assert (manifest.name, manifest.precision) == ("labels-8", "int8")
    assert manifest.method.name == "unidec"
    index = manifest.method.index
    assert (index.type, index.recall_at) == ("ivf", 100)
    assert f", effort {index.effort}, {index.candidates} candidates" in "".join(printed)


@pytest.mark.parametrize("kind", ["unidec", "ova"])
def test_plot_draws_what_the_index_was_chosen_from(workshop: Workshop, tmp_path: Path, kind: str) -> None:
    assert main(["plot", str(workshop.bundle(kind, index="ivf")), "--out", str(tmp_path / "curve.png")]) == 0
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("kind", ["unidec", "mach"])
def test_plot_refuses_what_was_not_measured(
    workshop: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    code, sentence = refused(capsys, "plot", workshop.bundle(kind), "--out", tmp_path / "curve.png")
    assert code == 2
    assert "expected an index that was chosen by measurement, found none" in sentence


def test_plot_without_matplotlib_is_refused(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(chart, "find_spec", lambda _: None)
    code, sentence = refused(capsys, "plot", workshop.bundle("unidec"), "--out", tmp_path / "curve.png")
    assert (code, "matplotlib, which is not installed" in sentence) == (2, True)


def test_build_says_what_its_scores_are(workshop: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build = ["build", str(workshop.artifact("mach-features")), "--out", str(tmp_path / "bundle")]
    assert main([*build, "--scores", "raw"]) == 0
    assert "  serves     raw scores\n" in capsys.readouterr().out
    assert main([*build, "--scores", "calibrated", "--propensity-weight", "0.5"]) == 0
    assert "), ordered by inverse propensity to the 0.5\n" in capsys.readouterr().out
    manifest = read_manifest(tmp_path / "bundle")
    assert manifest.propensity is not None
    assert manifest.propensity.weight == 0.5


def test_scores_that_cannot_be_weighted_are_wrong_use(
    workshop: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    artifact, out = workshop.artifact("mach-features"), tmp_path / "bundle"
    code, sentence = refused(capsys, "build", artifact, "--out", out, "--scores", "raw", "--propensity-weight", "1")
    assert (code, sentence) == (
        2,
        "xmc-export: --propensity-weight 1: expected calibrated scores to weight, found raw ones\n",
    )


def test_a_missing_artifact_is_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, sentence = refused(capsys, "build", tmp_path / "nowhere", "--out", tmp_path / "bundle")
    assert code == 2
    assert "nowhere: expected a training artifact" in sentence


def test_an_option_that_does_not_fit_is_wrong_use(
    workshop: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    artifact = workshop.artifact("mach-features")
    code, sentence = refused(capsys, "build", artifact, "--out", tmp_path / "bundle", "--index", "flat")
    assert (code, sentence) == (
        2,
        "xmc-export: --index flat: mach has no label index to choose; expected auto\n",
    )


def test_a_folder_of_other_files_is_not_written_over(
    workshop: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    code, sentence = refused(capsys, "build", workshop.artifact("mach-features"), "--out", tmp_path)
    assert code == 2
    assert "expected a bundle to replace, or nothing, found a folder of other files" in sentence
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_place_that_cannot_be_written_to_is_a_failure(
    workshop: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    code, sentence = refused(capsys, "build", workshop.artifact("mach-features"), "--out", tmp_path / "file" / "bundle")
    assert code == 1
    assert "Not a directory" in sentence


def test_an_interrupted_build_says_so(
    workshop: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = workshop.artifact("mach-features")

    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(writer, "trace", interrupted)
    code, sentence = refused(capsys, "build", artifact, "--out", tmp_path / "bundle")
    assert (code, sentence) == (1, "xmc-export: interrupted; nothing was changed\n")
    assert list(tmp_path.iterdir()) == []


def test_verify_compares_only_when_asked(workshop: Workshop, capsys: pytest.CaptureFixture[str]) -> None:
    bundle, artifact = str(workshop.bundle("declare-features")), str(workshop.artifact("declare-features"))
    assert main(["verify", bundle]) == 0
    alone = capsys.readouterr().out
    assert main(["verify", bundle, "--artifact", artifact]) == 0
    compared = capsys.readouterr().out
    assert "  labels     20, without texts\n" in alone
    assert "  golden     8 queries answered\n" in alone
    assert compared.startswith(alone)
    assert "samples with the trained model" in compared.removeprefix(alone)


def test_a_damaged_bundle_is_a_failure(workshop: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(workshop.bundle("declare-features"), tmp_path / "bundle")
    (tmp_path / "bundle" / layout.DECLARE_FACTORS).unlink()
    for arguments in (("verify", tmp_path / "bundle"), ("diff", tmp_path / "bundle", tmp_path / "bundle")):
        code, sentence = refused(capsys, *arguments)
        assert code == 1
        assert "expected file 'factors.npy', found none" in sentence


def test_another_models_artifact_is_a_failure(workshop: Workshop, capsys: pytest.CaptureFixture[str]) -> None:
    code, sentence = refused(capsys, "verify", workshop.bundle("mach"), "--artifact", workshop.artifact("unidec"))
    assert code == 1
    assert "expected a mach artifact, found unidec" in sentence


def test_diff_prints_what_differs_and_how_far_answers_agree(
    workshop: Workshop, capsys: pytest.CaptureFixture[str]
) -> None:
    full, small = str(workshop.bundle("mach")), str(workshop.bundle("mach", "int8"))
    assert main(["diff", full, small]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if not line.startswith("  ")][:3] == ["manifest", "files", "answers"]
    assert "  precision: fp32 -> int8" in lines
    assert lines[-1].startswith("agreement@5: ")
    assert lines[-1].endswith(f"({small} asked {full}'s 8 golden queries)")
    assert main(["diff", full, full]) == 0
    assert capsys.readouterr().out.splitlines()[:3] == ["manifest: equal", "files: equal", "answers: equal"]


def test_diff_says_why_a_bundle_cannot_be_asked(workshop: Workshop, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", str(workshop.bundle("mach")), str(workshop.bundle("mach-features"))]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "agreement@5: none, query 0: this model takes features, found a text"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["build", "a"],
        ["build", "a", "--out", "b", "--precision", "fp8"],
        ["build", "a", "--out", "b", "--scores", "cosine"],
        ["build", "a", "--out", "b", "--propensity-weight", "much"],
        ["verify"],
        ["diff", "a"],
    ],
)
def test_wrong_arguments_exit_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: xmc-export" in capsys.readouterr().err


def test_help_does_not_wait_for_torch() -> None:
    code = (
        "import sys; from model_export.cli import main\n"
        "try: main(['--help'])\nfinally: assert 'torch' not in sys.modules"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (process.returncode, process.stderr) == (0, "")
    assert all(command in process.stdout for command in ("build", "verify", "diff"))
