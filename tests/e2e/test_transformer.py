"""A transformer that was trained, exported and served: the HTTP answers are the trained model's, in any company."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from model_export.writer import Options, build
from tests.service.serving import serving
from tests.training.synthetic import load, tiny_transformer, write_texts
from training.artifact import Artifact, read_artifact
from training.data.batches import Bags
from training.loop import fit
from training.tokens import token_sequences

# Of mixed lengths; the last is longer than the model reads.
QUERIES = ["red", "a green river by the blue house", "candle, letter!", "white window " * 20]


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("transformer")
    dataset, run = load(write_texts(folder / "data"), tiny_transformer("unidec", epochs=2))
    fit(run, dataset, folder / "artifact", resume=False, log=print)
    return folder / "artifact"


@torch.no_grad()
def trained(artifact: Artifact) -> list[dict[str, float]]:
    """The trained model's scores by label id."""
    assert artifact.tokenizer is not None
    sequences = token_sequences(artifact.tokenizer, QUERIES, artifact.config.run.texts.max_tokens)
    scores_QL = artifact.restore().score(Bags.from_csr(sequences)).tolist()
    return [dict(zip(artifact.label_ids, scores, strict=True)) for scores in scores_QL]


def test_http_answers_are_the_trained_models_in_any_company(artifact: Path, tmp_path: Path) -> None:
    opened = read_artifact(artifact)
    expected = trained(opened)
    build(opened, tmp_path / "bundle", Options(scores="raw"))
    with serving(tmp_path / "bundle") as service:
        together = predictions(service.client, QUERIES)
        alone = [predictions(service.client, [query])[0] for query in QUERIES]
    for scores, answers in zip(expected, zip(together, alone, strict=True), strict=True):
        best = sorted(scores.values(), reverse=True)[:5]
        for answer in answers:
            assert [label["score"] for label in answer] == pytest.approx(best, abs=1e-4)
            assert [scores[label["id"]] for label in answer] == pytest.approx(best, abs=1e-4)


def predictions(client: Any, queries: list[str]) -> list[list[dict[str, Any]]]:
    response = client.post("/predict", json={"queries": queries, "k": 5})
    assert response.status_code == 200, response.text
    return [prediction["labels"] for prediction in response.json()["predictions"]]
