"""`xmc-train` as users call it: exit codes, sentences, precedence of options, and the way from a table to measures."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.training.synthetic import COLOURS, LABELS, MINILM, THINGS, write_texts
from training.artifact import read_artifact
from training.citations import CITATIONS
from training.cli import DONE, FAILED, WRONG_USE, main
from training.methods import METHODS
from training.recipes import RECIPES

ROOT = Path(__file__).parents[2]
SMALL = ("training.epochs=1", "training.batch_size=16", "encoder.widths=[8]", "vocabulary.subwords=60")


def fit(data: Path, out: Path, *more: str, method: str = "mach") -> int:
    return main(["fit", "--data", str(data), "--method", method, "--out", str(out), *more, "--set", *SMALL])


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that must be refused; returns its one sentence."""
    assert main(arguments) == WRONG_USE
    captured = capsys.readouterr()
    assert captured.err.startswith("xmc-train: ")
    assert "Traceback" not in captured.err
    return captured.err


@pytest.fixture(scope="module")
def artifact(texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cli") / "mach"
    assert fit(texts, out) == DONE
    return out


@pytest.mark.parametrize("command", [[], ["fit"], ["evaluate"], ["prepare"], ["list"], ["cite"]])
def test_help_does_not_wait_for_torch(command: list[str]) -> None:
    program = (
        "import sys\nfrom training.cli import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "finally:\n    print('torch' in sys.modules)"
    )
    arguments = [sys.executable, "-c", program, *command, "--help"]
    run = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.startswith("usage: xmc-train")
    assert run.stdout.endswith("False\n")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["frobnicate"],
        ["fit", "--data", "x"],
        ["fit", "--out", "x"],
        ["fit", "--nope"],
        ["evaluate", "a", "--data", "d", "--split", "validation"],
        ["prepare", "--out", "x"],
        ["cite"],
    ],
)
def test_wrong_use_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(arguments)
    assert leaving.value.code == WRONG_USE
    assert "usage: xmc-train" in capsys.readouterr().err


def test_list_names_methods_and_recipes_with_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == DONE
    lines = capsys.readouterr().out.splitlines()
    middle = lines.index("recipes")
    assert lines[0] == "methods"
    for names, part in ((METHODS, lines[1:middle]), (RECIPES, lines[middle + 1 :])):
        assert [line.split()[0] for line in part] == list(names)
        assert all(len(line.split()) > 3 for line in part)


def test_every_recipe_has_citations() -> None:
    assert list(CITATIONS) == list(RECIPES)


@pytest.mark.parametrize("recipe", RECIPES)
def test_cite_prints_bibtex(recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cite", recipe]) == DONE
    entries = capsys.readouterr().out.strip().split("\n\n")
    assert len(entries) >= 1
    for entry in entries:
        assert re.match(r"@(inproceedings|misc|article)\{\w+,\n", entry)
        assert entry.count("{") == entry.count("}")
        assert entry.endswith("\n}")
        assert "title" in entry
        # One field a line: a new field never begins behind the end of another.
        assert not re.search(r"\},[^\n]*=", entry)


def test_cite_of_an_unknown_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    sentence = refused(capsys, "cite", "parabel")
    assert "'parabel'" in sentence
    assert "mach-independent" in sentence


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_dry_run_says_what_would_be_done_and_does_nothing(
    recipe: str, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = ["fit", "--data", str(texts), "--recipe", recipe, "--out", str(out), "--dry-run"]
    if RECIPES[recipe]().encoder.kind == "transformer":
        arguments += ["--set", f"encoder.model={MINILM}"]
    assert main(arguments) == DONE
    captured = capsys.readouterr().out
    assert [line.split()[0] for line in captured.splitlines()] == [
        *("data", "method", "encoder", "training", "steps", "weights", "memory"),
        *(["reranker"] if recipe.endswith("-reranked") else []),
        *(["parts"] if recipe == "mach-independent" else []),
    ]
    assert f'"name":"{RECIPES[recipe]().method.name}"' in captured
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("method", METHODS)
def test_a_method_is_reranked_unless_its_recipe_is_named(
    method: str, texts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    of_method, of_recipe = (
        planned(capsys, texts, *chosen) for chosen in (("--method", method), ("--recipe", f"{method}-reranked"))
    )
    assert of_method == of_recipe
    assert "reranker" in of_method
    assert "reranker" not in planned(capsys, texts, "--method", method, "--recipe", method)


@pytest.mark.parametrize("backwards", [False, True])
def test_another_kind_of_encoder_begins_with_its_own_options(
    texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], backwards: bool
) -> None:
    """In whatever order they are given; what the recipe says of the other kind is forgotten."""
    changes = ["encoder.kind=bag", "encoder.widths=[7]"]
    arguments = ["fit", "--data", str(texts), "--recipe", "mach-frozen", "--out", str(tmp_path / "out"), "--dry-run"]
    assert main([*arguments, "--set", *(changes[::-1] if backwards else changes)]) == DONE
    assert '{"kind":"bag","widths":[7],"dropout":0.0' in capsys.readouterr().out


def test_a_transformer_beside_a_vocabulary_is_refused(
    texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sentence = refused(
        *(capsys, "fit", "--data", str(texts), "--method", "mach", "--out", str(tmp_path / "out")),
        *("--set", "encoder.kind=transformer", f"encoder.model={MINILM}", "vocabulary.words=9"),
    )
    assert "a transformer brings its own tokenizer" in sentence


def test_a_model_that_cannot_be_had_is_refused(texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model").mkdir()
    sentence = refused(
        *(capsys, "fit", "--data", str(texts), "--recipe", "mach-frozen", "--out", str(tmp_path / "out")),
        *("--set", f"encoder.model={tmp_path / 'model'}"),
    )
    assert "found no config.json" in sentence


def test_fit_then_evaluate(texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit(texts, tmp_path / "out") == DONE
    printed = capsys.readouterr().out
    assert "epoch   1/1" in printed
    assert re.search(r"kept epoch 1 \(validation P@1 \d+\.\d\d\); wrote .*out\n$", printed)
    assert main(["evaluate", str(tmp_path / "out"), "--data", str(texts), "--json", str(tmp_path / "m.json")]) == DONE
    lines = dict(line.split() for line in capsys.readouterr().out.splitlines())
    measures = json.loads((tmp_path / "m.json").read_text())
    names = {f"{name}@{k}" for name in ("P", "nDCG", "PSP", "R", "RP", "coverage", "ECE") for k in (1, 3, 5)}
    assert set(measures) == names | {"R@100", "constant_P@1"}
    assert all(type(value) is float and 0 <= value <= 100 for value in measures.values())
    assert lines == {name: f"{value:.2f}" for name, value in measures.items()}


@pytest.mark.parametrize("split", ["trn", "tst"])
def test_option_split(artifact: Path, texts: Path, tmp_path: Path, split: str) -> None:
    file = tmp_path / "m.json"
    arguments = ["evaluate", str(artifact), "--data", str(texts), "--split", split, "--json", str(file)]
    assert main(arguments) == DONE
    records = [json.loads(line) for line in (texts / f"{split}.json").read_text().splitlines()]
    counts = read_artifact(artifact).label_counts
    hits = [int(counts.argmax()) in record["target_ind"] for record in records]
    assert json.loads(file.read_text())["constant_P@1"] == pytest.approx(100 * sum(hits) / len(hits))


def test_option_k(artifact: Path, texts: Path, tmp_path: Path) -> None:
    file = tmp_path / "m.json"
    assert main(["evaluate", str(artifact), "--data", str(texts), "--k", "2,4", "--json", str(file)]) == DONE
    measures = json.loads(file.read_text())
    assert {"P@2", "P@4", "R@100"} <= set(measures)
    assert "P@1" not in measures


@pytest.mark.parametrize("ks", ["0", "1,x", "", "-1", "1;2"])
def test_ranks_must_be_positive_numbers(ks: str, capsys: pytest.CaptureFixture[str]) -> None:
    sentence = refused(capsys, "evaluate", "artifact", "--data", "data", f"--k={ks}")
    assert f"--k: expected positive ranks separated by commas, found {ks!r}" in sentence


def test_a_split_that_is_not_there(artifact: Path, texts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "expected a 'dev' split" in refused(
        capsys, "evaluate", str(artifact), "--data", str(texts), "--split", "dev"
    )


def test_what_is_no_artifact(texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "expected a training artifact" in refused(capsys, "evaluate", str(tmp_path / "no"), "--data", str(texts))


def test_a_json_file_that_cannot_be_written_is_a_sentence(
    artifact: Path, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "nowhere" / "m.json"
    code = main(["evaluate", str(artifact), "--data", str(texts), "--json", str(file)])
    assert code in (FAILED, WRONG_USE)
    assert "nowhere" in capsys.readouterr().err


def test_bad_data_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_texts(tmp_path / "data")
    (folder / "trn.json").write_text('{"uid": "a", "title": "x", "target_ind": [99]}\n')
    sentence = refused(capsys, "fit", "--data", str(folder), "--method", "mach", "--out", str(tmp_path / "out"))
    assert re.search(r"trn\.json, line 1: expected label rows from 0 to 7, found 99", sentence)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.part").exists()


def test_a_folder_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("fit", "--data", str(tmp_path / "no"), "--method", "mach", "--out", str(tmp_path / "out"))
    assert "expected a data folder, found nothing" in refused(capsys, *arguments)


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_unidec_without_label_texts_names_the_other_methods(
    features: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str]
) -> None:
    arguments = ("fit", "--data", str(features), "--method", "unidec", "--out", str(tmp_path / "out"))
    sentence = refused(capsys, *arguments, *more)
    assert "mach" in sentence
    assert "declare" in sentence
    assert not list(tmp_path.iterdir())


def test_a_dry_run_refuses_what_the_run_would(texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("fit", "--data", str(texts), "--method", "mach", "--out", str(tmp_path / "out"), "--dry-run")
    assert "softmax needs exactly one label" in refused(capsys, *arguments, "--set", "method.loss=softmax")


def test_a_run_that_diverges_has_failed(texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rates = ["--set", "training.learning_rate=1e30", "--set", "training.table_rate=1e8"]
    assert fit(texts, tmp_path / "out", *rates, method="declare") == FAILED
    assert re.fullmatch(r"xmc-train: the loss of epoch \d is (nan|inf): lower .*\n", capsys.readouterr().err)


def test_an_existing_target_is_refused_before_data_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").mkdir()
    arguments = ("fit", "--data", str(tmp_path / "no data"), "--method", "mach", "--out", str(tmp_path / "out"))
    assert "out exists already" in refused(capsys, *arguments)


def test_interrupting_a_run_fails_and_resuming_finishes_it(
    texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupting_print(line: str, **options: Any) -> None:
        if line.startswith("epoch   1/2"):
            raise KeyboardInterrupt
        print(line, **options)

    arguments = ["fit", "--data", str(texts), "--method", "mach", "--out", str(tmp_path / "out")]
    options = ["--set", *SMALL, "training.epochs=2"]
    with monkeypatch.context() as patch:
        patch.setattr("training.commands.print", interrupting_print, raising=False)
        assert main([*arguments, *options]) == FAILED
    assert "interrupted; `fit --resume` continues" in capsys.readouterr().err
    assert "continue it with --resume" in refused(capsys, *arguments, *options)
    assert main([*arguments, "--resume", *options]) == DONE
    assert "resuming after epoch 1 of 2" in capsys.readouterr().out
    assert len((tmp_path / "out" / "history.jsonl").read_text().splitlines()) == 2


def planned(capsys: pytest.CaptureFixture[str], texts: Path, *arguments: str) -> dict[str, dict[str, Any]]:
    """Method, encoder, training and re-ranker as a dry run says they would be."""
    assert main(["fit", "--data", str(texts), "--out", "never-written", "--dry-run", *arguments]) == DONE
    lines = (line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    return {name: json.loads(rest) for name, rest in lines if name in ("method", "encoder", "training", "reranker")}


def test_single_options_over_the_file_over_the_recipe(
    texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "run.toml"
    file.write_text('[method]\nrepetitions = 5\nbuckets = 6\n[training]\nepochs = 7\nschedule = "cosine"\n')
    recipe = planned(capsys, texts, "--recipe", "mach-independent")
    assert (recipe["method"]["networks"], recipe["method"]["repetitions"]) == ("independent", 32)
    with_file = planned(capsys, texts, "--recipe", "mach-independent", "--config", str(file))
    assert with_file["method"] == recipe["method"] | {"repetitions": 5, "buckets": 6}
    assert with_file["training"] == recipe["training"] | {"epochs": 7, "schedule": "cosine"}
    single = ("method.buckets=9", "method.aggregation=mean_prob", "encoder.widths=[3, 4]", "training.warmup=0.25")
    both = planned(capsys, texts, "--recipe", "mach-independent", "--config", str(file), "--set", *single)
    assert both["method"] == with_file["method"] | {"buckets": 9, "aggregation": "mean_prob"}
    assert both["encoder"] == recipe["encoder"] | {"widths": [3, 4]}
    assert both["training"] == with_file["training"] | {"warmup": 0.25}


def test_the_last_of_equal_options_counts(texts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--set", "training.epochs=3", "--set", "training.seed=5", "training.epochs=4")
    found = planned(capsys, texts, "--method", "mach", *options)["training"]
    assert (found["epochs"], found["seed"]) == (4, 5)


def test_method_and_recipe_may_be_given_together(texts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = planned(capsys, texts, "--method", "mach", "--recipe", "mach-independent")
    assert both["method"]["networks"] == "independent"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "fit needs --method or --recipe"),
        (["--method", "parabel"], "no method named 'parabel'; expected one of mach, declare, unidec, ova"),
        (["--recipe", "parabel"], "no recipe named 'parabel'"),
        (["--method", "declare", "--recipe", "mach"], "recipe 'mach' is of method mach, not declare"),
        (["--method", "mach", "--set", "training.epoch=3"], r"training\.epoch: .*not permitted"),
        (["--method", "mach", "--set", "method.rank=3"], r"method\..*rank: .*not permitted"),
        (["--method", "mach", "--set", "nonsense.key=3"], r"nonsense: .*not permitted"),
        (["--method", "mach", "--set", "training.epochs=many"], r"training\.epochs: .*integer.*found 'many'"),
        (["--method", "mach", "--set", "training.epochs=0"], r"training\.epochs: .*greater.*found 0"),
        (["--method", "mach", "--set", "training.epochs"], "--set: expected KEY=VALUE, found 'training.epochs'"),
        (["--method", "mach", "--set", "=3"], "--set: expected KEY=VALUE, found '=3'"),
        (["--method", "mach", "--set", "training=3"], r"training: .*found 3"),
        (["--method", "mach", "--set", "training.epochs.more=3"], r"training\.epochs"),
        (["--method", "mach", "--config", "no-such.toml"], r"--config: no-such\.toml cannot be read: No such file"),
        (["--method", "mach", "--set", "training.selection=accuracy"], r"training\.selection.*found 'accuracy'"),
    ],
)
def test_wrong_options_are_refused_by_name(
    texts: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    sentence = refused(capsys, "fit", "--data", str(texts), "--out", "never-written", "--dry-run", *arguments)
    assert re.search(expected, sentence), sentence


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b"epochs =", "expected TOML"), (b"\xff", "expected TOML"), (b"[training]\nepoch = 3\n", r"training\.epoch")],
)
def test_wrong_configuration_files_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, expected: str
) -> None:
    file = tmp_path / "run.toml"
    file.write_bytes(content)
    arguments = ("fit", "--data", "no", "--out", "never-written", "--method", "mach", "--config", str(file))
    assert re.search(expected, refused(capsys, *arguments))


def test_from_a_table_to_measures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, labels = tmp_path / "points.csv", tmp_path / "labels.jsonl"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "words", "tags"])
        for row in range(60):
            own = (row % LABELS, (row * 3 + 1) % LABELS)
            writer.writerow(
                [f"p{row}", " ".join(COLOURS[label] for label in own), "|".join(f"l{label}" for label in own)]
            )
    names = [{"id": f"l{row}", "text": f"{COLOURS[row]} {THINGS[row]}"} for row in range(LABELS)]
    labels.write_text("".join(json.dumps(name) + "\n" for name in names))
    columns = ["--text-column", "words", "--label-column", "tags", "--id-column", "name", "--label-separator", "|"]
    data = str(tmp_path / "data")
    prepare = ["prepare", str(table), "--out", data, *columns, "--label-texts", str(labels), "--test-fraction", "0.2"]
    assert main(prepare) == DONE
    assert "48 training points, 12 test points, 8 labels" in capsys.readouterr().out
    for method in METHODS:
        assert fit(Path(data), tmp_path / method, method=method) == DONE
        assert main(["evaluate", str(tmp_path / method), "--data", data]) == DONE
    assert data in refused(capsys, *prepare)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--test-fraction", "1"], "--test-fraction: expected a share between 0 and 1, found 1.0"),
        (["--label-separator", ""], "--label-separator: expected at least one character"),
        (["--text-column", "nope"], "nope"),
        (["--content-column", "nope"], "nope"),
    ],
)
def test_prepare_refuses_wrong_options(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], expected: str
) -> None:
    table = tmp_path / "points.csv"
    table.write_text("words,tags\na,b\nc,d\n")
    usual = ["prepare", str(table), "--out", str(tmp_path / "data"), "--text-column", "words", "--label-column", "tags"]
    assert expected in refused(capsys, *usual, *options)
    assert not (tmp_path / "data").exists()
