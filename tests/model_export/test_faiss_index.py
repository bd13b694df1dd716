"""Approximate label indexes: the right type, recall that was measured, and search effort that travels with the file."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pytest

from model_export import faiss_index
from model_export.faiss_index import build_index, chosen_type, ivf_lists, recall, write_index


def vectors(count: int, seed: int = 0) -> np.ndarray:
    drawn = np.random.default_rng(seed).standard_normal((count, 24)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("choice", "count", "kind"),
    [
        ("auto", 1, "flat"),
        ("auto", 199_999, "flat"),
        ("auto", 200_000, "hnsw"),
        ("flat", 10**7, "flat"),
        ("hnsw", 10, "hnsw"),
        ("ivf", 10, "ivf"),
    ],
)
def test_auto_is_exact_below_200_000(choice: str, count: int, kind: str) -> None:
    assert chosen_type(choice, count) == kind  # type: ignore[arg-type]


@pytest.mark.parametrize(("count", "lists"), [(1, 1), (38, 1), (780, 20), (100_000, 1265), (1_000_000, 4000)])
def test_inverted_files_have_four_roots_of_lists_that_can_be_trained(count: int, lists: int) -> None:
    assert ivf_lists(count) == lists


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_every_type_finds_what_is_wanted_and_says_how_much(kind: str, tmp_path: Path) -> None:
    labels, queries = vectors(3000), vectors(80, seed=1)
    index, measured = build_index(labels, queries, kind)  # type: ignore[arg-type]
    assert measured >= 0.95
    write_index(index, tmp_path / "labels.faiss")
    reread = faiss.read_index(str(tmp_path / "labels.faiss"))
    exact = np.argsort(-queries @ labels.T, axis=1)[:, :10]
    found = reread.search(queries, 10)[1]
    shares = [len(set(a) & set(b)) / 10 for a, b in zip(exact.tolist(), found.tolist(), strict=True)]
    assert np.mean(shares) == pytest.approx(measured)


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_no_more_effort_is_spent_than_the_recall_asks_for(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    labels, queries = vectors(3000), vectors(80, seed=1)

    def effort(wanted: float) -> int:
        monkeypatch.setattr(faiss_index, "WANTED_RECALL", wanted)
        monkeypatch.setattr(faiss_index, "HNSW_SEARCH_EFFORTS", (4, 64, 1024))
        index, measured = build_index(labels, queries, kind)  # type: ignore[arg-type]
        assert measured >= wanted
        return index.nprobe if kind == "ivf" else index.hnsw.efSearch

    low, high = effort(0.2), effort(0.99)
    assert low < high


def test_recall_counts_any_of_equally_near_vectors() -> None:
    """Thirty copies of one vector: whichever ten are found, nothing was missed."""
    labels = np.concatenate([np.repeat(vectors(1), 30, axis=0), vectors(5, seed=1)])
    index = faiss.IndexFlatIP(24)
    index.add(labels[::-1].copy())
    assert recall(index, labels, labels[:1]) == 1


def test_recall_of_half_the_vectors_is_about_a_half() -> None:
    labels, queries = vectors(400), vectors(64, seed=1)
    index = faiss.IndexIDMap(faiss.IndexFlatIP(24))
    index.add_with_ids(labels[::2].copy(), np.arange(0, 400, 2))
    assert 0.4 < recall(index, labels, queries) < 0.6


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_few_labels_and_few_samples_are_enough(kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    index, measured = build_index(vectors(3), vectors(1, seed=1), kind)  # type: ignore[arg-type]
    assert (index.ntotal, measured) == (3, 1)
    assert capfd.readouterr() == ("", "")
