"""Sizes that are derived: those of training and export."""

from __future__ import annotations

from typing import Any

import pytest

from model_export import faiss_index, label_index, onnx_encoder
from service.decoders import factors, mach
from service.errors import SettingsError
from service.planning import capacity, index_file, work
from service.planning.defaults import VOCABULARY
from service.planning.workload import EXACT_NUMBERS, Method, Wishes, resolved
from training.methods import METHODS
from training.methods.base import Shape
from training.recipes import RECIPES
from training.vocabulary import VocabularyConfig

LABELS = (40, 4096, 4097, 32_768, 32_769, 524_288, 524_289, 10_000_000)


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("method", METHODS)
def test_sizes_are_those_that_training_derives(method: Method, labels: int) -> None:
    shape = Shape(input_width=VOCABULARY, label_count=labels, train_rows=10 * labels, text=True, single_label=False)
    run = RECIPES[method]()
    config: Any = run.method.resolved(shape)
    found = resolved(Wishes(method, labels))
    assert found.widths == METHODS[method].encoder_config(config, run.encoder, shape).widths
    match method:
        case "mach":
            assert (found.repetitions, found.buckets) == (config.repetitions, config.buckets)
            assert found.dimension == found.widths[-1]
        case "declare":
            assert found.dimension == config.rank
        case "unidec":
            assert found.dimension == 2 * config.dimensions
        case "ova":
            assert found.dimension == found.widths[-1] + 1


def test_a_re_ranked_mach_has_the_width_of_its_recipe() -> None:
    recipe: Any = RECIPES["mach-reranked"]()
    assert resolved(Wishes("mach", 10**6, rerank_weights=100)).widths == recipe.encoder.widths


def test_numbers_are_those_that_export_and_decoders_decide_by() -> None:
    assert EXACT_NUMBERS == label_index.EXACT_NUMBERS
    assert VocabularyConfig().words + VocabularyConfig().subwords == VOCABULARY
    assert onnx_encoder.MOST_BYTES == capacity.MOST_ENCODER_BYTES
    assert (mach.SEARCHED_ENTRIES, factors.SEARCHED_VOTES) == (work.SEARCHED_ENTRIES, work.SEARCHED_VOTES)
    assert faiss_index.HNSW_LINKS == index_file.LINKS
    for labels in (1, 100, 10_000, 10**6):
        assert index_file.ivf_lists(labels) == faiss_index.ivf_lists(labels)


@pytest.mark.parametrize(("labels", "index"), [(32_768, "flat"), (32_769, "ivf")])
def test_the_index_is_exact_where_export_leaves_it_so(labels: int, index: str) -> None:
    assert resolved(Wishes("unidec", labels)).index == index


@pytest.mark.parametrize(
    ("wishes", "sentence"),
    [
        (Wishes("unidec", 10, repetitions=4), "--repetitions belongs to mach: expected none with unidec"),
        (Wishes("mach", 10, rows=4), "--rows belongs to declare: expected none with mach"),
        (Wishes("declare", 10, index="flat"), "--index belongs to unidec and ova"),
        (Wishes("mach", 10, buckets=1), "--buckets: expected at least 2, found 1"),
        (Wishes("ova", 2**32), "--labels: expected at most 4,294,967,294"),
        (Wishes("unidec", 10, dimension=8, leading=8), "--leading: expected fewer coordinates than the 8"),
        (Wishes("unidec", 10, index="ivf", leading=8), "found 8 with ivf"),
        (Wishes("unidec", 10, encoder="transformer", vocabulary=9), "--vocabulary is that of a bag encoder"),
        (Wishes("unidec", 10, dimension=7), "--dim: expected an even number"),
        (Wishes("ova", 10, dimension=1), "--dim: expected at least 2"),
    ],
)
def test_what_cannot_be_is_refused(wishes: Wishes, sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        resolved(wishes)
