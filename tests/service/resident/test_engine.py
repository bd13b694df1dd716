"""Whole engines with resident decoders: the same answers as without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service import engine
from service.bags import Bag
from service.bundle import open_bundle
from service.engine import Engine
from service.errors import EngineFailed
from service.filters.allowed import Allowed, bits_of
from service.filters.search import Wanted
from service.resident import resident_decoder
from tests.bundles import GOLDEN_FEATURES, GOLDEN_TEXTS, INPUT_KINDS, METHODS, InputKind, Method, Spec, write_bundle
from tests.changes import change, make
from tests.service.resident.devices import DEVICES


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Opens an engine as for a GPU, on whatever device."""

    def open_engine(device: str, **fields: Any) -> Engine:
        write_bundle(tmp_path / device, Spec(**fields))
        bundle = open_bundle(tmp_path / device)
        if device == "cuda":
            return Engine.open(bundle, device=device)
        with monkeypatch.context() as patch:
            # All is as on a GPU, but ONNX Runtime is told to compute on the CPU.
            patch.setattr(engine, "resolve_device", lambda *_: "cuda")
            patch.setattr("service.resident.resident_decoder", lambda bundle, _: resident_decoder(bundle, "cpu"))
            start = engine.Encoder.open
            patch.setattr(engine.Encoder, "open", lambda *places, **given: start(*places, **{**given, "device": "cpu"}))
            return Engine.open(bundle)

    return open_engine


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", INPUT_KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_answers_are_those_of_the_cpu(
    opened: Any, tmp_path: Path, method: Method, kind: InputKind, device: str
) -> None:
    resident = opened(device, method=method, input=kind)
    resident.warm_up()
    resident.check_golden()
    plain = Engine.open(open_bundle(tmp_path / device), device="cpu")
    queries = GOLDEN_TEXTS if kind == "text" else GOLDEN_FEATURES
    tops = [one.run(one.prepare(queries * 11), 7).top for one in (resident, plain)]
    np.testing.assert_array_equal(tops[0].ids_QK, tops[1].ids_QK)
    np.testing.assert_allclose(tops[0].scores_QK, tops[1].scores_QK, rtol=1e-4, atol=1e-5)
    assert resident.device == device


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("method", ["mach", "unidec", "ova"])
def test_filters_and_explanations_are_those_of_the_cpu(
    opened: Any, tmp_path: Path, method: Method, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Directly, and by more of the best labels: queries with either go to the device alone."""
    resident = opened(device, method=method)
    plain = Engine.open(open_bundle(tmp_path / device), device="cpu")
    queries = plain.prepare(GOLDEN_TEXTS)
    best = plain.run(queries, 10).top.ids_QK[1]
    few, most = (Allowed.of_bits(bits_of(rows, 40)) for rows in (best[5:7], np.setdiff1d(np.arange(40), best[:3])))
    monkeypatch.setattr(resident.live.view.decoder.scorer, "cheap_labels", 10)
    answer = resident.run(queries, 5, {0: Wanted(2, few), 1: Wanted(6, most)}, [0, 1, 2])
    expected = plain.run(queries, 5, {0: Wanted(2, few), 1: Wanted(6, most)}, [0, 1, 2])
    assert answer.filtered[1].mode == "overfetch"
    for place in (0, 1):
        np.testing.assert_array_equal(answer.filtered[place].ids_K, expected.filtered[place].ids_K)
        found, wanted = answer.filtered[place].scores_K, expected.filtered[place].scores_K
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    for place, explainer in answer.explainers.items():
        ids_K, scores_K = answer.top.ids_QK[place][:3], answer.top.scores_QK[place][:3]
        if place in answer.filtered:
            ids_K, scores_K, *_ = answer.filtered[place]
        for one, other in zip(
            explainer.explain(ids_K, scores_K), expected.explainers[place].explain(ids_K, scores_K), strict=True
        ):
            np.testing.assert_allclose(one.raw, other.raw, rtol=1e-4, atol=1e-5)
            assert one.rank == other.rank


@pytest.mark.parametrize("device", DEVICES)
def test_labels_that_change_are_those_of_the_cpu(opened: Any, tmp_path: Path, device: str) -> None:
    """Added ones are scored beside the device, disabled ones searched around on it."""
    resident = opened(device, method="unidec")
    plain = Engine.open(open_bundle(tmp_path / device), device="cpu")
    best = [one.label for one in plain.answer_alone(GOLDEN_TEXTS[0], 30)]
    for one in (resident, plain):
        make(one, change({"new": GOLDEN_TEXTS[0], "other": "font"}, disable=best[:20]))
    for text in GOLDEN_TEXTS:
        found, expected = resident.answer_alone(text, 9), plain.answer_alone(text, 9)
        assert [one.label for one in found] == [one.label for one in expected]
        np.testing.assert_allclose([one.score for one in found], [one.score for one in expected], rtol=1e-4, atol=1e-5)
    assert resident.answer_alone(GOLDEN_TEXTS[0], 1)[0].label == "new"


@pytest.mark.parametrize("device", DEVICES)
def test_scores_are_calibrated_and_reranked_as_ever(opened: Any, device: str) -> None:
    opened(device, method="unidec", reranked=True, calibrated=True).check_golden()


@pytest.mark.parametrize(
    "fields",
    [
        {"method": "declare"},
        {"method": "unidec", "index": "hnsw"},
        {"method": "mach", "aggregation": "min"},
        {"method": "mach", "aggregation": "median"},
    ],
)
def test_what_a_gpu_does_not_decode_the_cpu_does(
    opened: Any, caplog: pytest.LogCaptureFixture, fields: dict[str, Any]
) -> None:
    caplog.set_level("INFO")
    opened("cpu", **fields).check_golden()
    assert "tiny: the encoder runs on the GPU, its labels are found by the CPU" in caplog.text


@pytest.mark.parametrize("device", DEVICES)
def test_numbers_that_are_not_finite_are_an_error(opened: Any, device: str) -> None:
    one = opened(device, method="mach", input="features")
    with pytest.raises(EngineFailed, match="bucket_logits is NaN or infinite"):
        one.run([*one.prepare(GOLDEN_FEATURES), Bag(np.array([0]), np.array([np.nan], dtype=np.float32))], 3)
