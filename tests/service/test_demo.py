"""The demonstration against real servers: every method answers, and every failure is one sentence and exit code 1."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.demo import main, render
from tests.bundles import METHODS, Spec, write_bundle

QUERY = "a fast web server"


def test_every_model_is_asked_and_the_server_is_stopped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for method in METHODS:
        write_bundle(tmp_path / method, Spec(method=method, name=method))
    assert main([*(str(tmp_path / method) for method in METHODS), "--query", QUERY, "--k", "3"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    first, *sections = out.split("\n\n")
    assert first == f'Query: "{QUERY}"'
    assert [section.split(" ")[0] for section in sections] == list(METHODS)
    assert [len(section.strip().splitlines()) for section in sections] == [4] * len(METHODS)


def test_a_server_that_cannot_start_is_quoted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "nowhere"), "--query", QUERY]) == 1
    error = capsys.readouterr().err
    assert error.startswith("demo: the server ended with code 1 before it was ready:\n")
    assert "nowhere" in error


def test_a_refused_query_is_quoted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_bundle(tmp_path / "tiny", Spec(input="features"))
    assert main([str(tmp_path / "tiny"), "--query", QUERY]) == 1
    error = capsys.readouterr().err
    assert "/predict answered 422" in error


def test_labels_without_texts_are_shown_by_id() -> None:
    model = {"name": "plain", "method": "mach", "label_count": 1234, "seconds": 0.0042}
    answer = {**model, "labels": [{"id": "7", "score": 0.5}]}
    assert render("words", [answer]) == 'Query: "words"\n\nplain (mach, 1,234 labels, 4.2 ms)\n     0.5000  7\n'
