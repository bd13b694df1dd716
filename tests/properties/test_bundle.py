"""What a bundle stores comes back as it was: manifests through JSON, label strings through their tables."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from service.bundle import Manifest, content_version, encode_labels
from service.bundle.labels import LabelTable
from service.bundle.manifest import (
    CalibrationSection,
    DeclareSection,
    FeatureQuery,
    FeaturesInput,
    FileEntry,
    GoldenAnswer,
    HashSection,
    IsotonicMap,
    MachSection,
    Parity,
    PlattMap,
    PropensitySection,
    RankMap,
    TextInput,
)
from service.bundle.searching import IndexPoint, IndexSection, OvaSection, UnidecSection

SHARES = st.floats(0, 1)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
COUNTS = st.integers(1, 10**9)
TEXTS = st.text()  # without surrogates, as JSON needs it

HASHES = st.builds(HashSection, seed=st.integers(0, 2**32 - 1))
POINTS = st.builds(
    IndexPoint,
    effort=st.none() | COUNTS,
    span=st.none() | st.floats(0, 1e9),
    candidates=st.none() | COUNTS,
    recall=SHARES,
    p50_ms=st.floats(0, 1e9),
    size_bytes=COUNTS,
)
OF_ANY_INDEX = {
    "recall": SHARES,
    "recall_at": COUNTS,
    "effort": st.none() | COUNTS,
    "curve": st.lists(POINTS, max_size=3).map(tuple),
}
CODED = OF_ANY_INDEX | {"candidates": COUNTS, "directions": COUNTS}
INDEXES = st.one_of(
    st.builds(IndexSection, type=st.just("flat"), leading=st.none() | COUNTS, **OF_ANY_INDEX),
    st.builds(IndexSection, type=st.just("hnsw"), **CODED),
    st.builds(IndexSection, type=st.just("ivf"), span=st.floats(0, 1e9), **CODED),
)
METHODS = st.one_of(
    st.builds(MachSection, repetitions=COUNTS, buckets=st.integers(2, 10**6), hash=HASHES),
    st.builds(DeclareSection, rank=COUNTS, neighbours=COUNTS),
    st.builds(UnidecSection, dimension=COUNTS, index=INDEXES),
    st.builds(OvaSection, dimension=COUNTS, index=INDEXES),
)
FILES = st.dictionaries(
    TEXTS,
    st.builds(
        FileEntry,
        size=st.integers(0, 2**50),
        sha256=st.from_regex(r"[0-9a-f]{64}", fullmatch=True),
        shape=st.none() | st.lists(st.integers(0, 2**40), max_size=3).map(tuple),
    ),
    max_size=4,
)
FEATURE_QUERIES = st.builds(
    FeatureQuery, indices=st.lists(COUNTS, max_size=4).map(tuple), values=st.lists(FINITE, max_size=4).map(tuple)
)


@st.composite
def isotonic_maps(draw: st.DrawFn) -> IsotonicMap:
    """Any knots that rise."""
    scores = sorted(draw(st.sets(FINITE, min_size=1, max_size=5)))
    shares = sorted(draw(st.lists(SHARES, min_size=len(scores), max_size=len(scores))))
    return IsotonicMap(scores=tuple(scores), probabilities=tuple(shares))


@st.composite
def calibrations(draw: st.DrawFn) -> CalibrationSection:
    """Maps of both kinds, from rank 1 on."""
    platt_maps = st.builds(PlattMap, slope=st.floats(0, 1e9), intercept=FINITE)
    firsts = [1, *sorted(draw(st.sets(st.integers(2, 200), max_size=3)))]
    maps = (draw(platt_maps | isotonic_maps()) for _ in firsts)
    ranks = (RankMap(first_rank=first, map=each) for first, each in zip(firsts, maps, strict=True))
    return CalibrationSection(ranks=tuple(ranks))


PROPENSITIES = st.builds(PropensitySection, weight=st.floats(0, 10, exclude_min=True), candidates=COUNTS)


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    """Any manifest whose golden queries are of its input's kind and whose version fits."""
    text = draw(st.booleans())
    queries = draw(st.builds(TextInput, max_tokens=COUNTS) if text else st.builds(FeaturesInput, dimension=COUNTS))
    method, files = draw(METHODS), draw(FILES)
    calibration = draw(st.none() | calibrations())
    propensity = None if calibration is None else draw(st.none() | PROPENSITIES)
    labels = st.lists(st.fixed_dictionaries({"id": TEXTS, "score": FINITE}), min_size=1, max_size=3).map(tuple)
    answers = st.builds(GoldenAnswer, query=TEXTS if text else FEATURE_QUERIES, labels=labels)
    return Manifest(
        name=draw(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)),
        version=content_version(queries, method, files, calibration, propensity),
        created_with=draw(st.dictionaries(TEXTS, TEXTS, max_size=3)),
        input=queries,
        label_count=draw(COUNTS),
        has_label_texts=draw(st.booleans()),
        precision=draw(st.sampled_from(["fp32", "fp16", "int8"])),
        method=method,
        calibration=calibration,
        propensity=propensity,
        files=files,
        parity=draw(st.none() | st.builds(Parity, max_score_difference=st.floats(0, 1e9), equal_top_k=SHARES)),
        golden=draw(st.lists(answers, max_size=3).map(tuple)),
    )


@given(manifests())
def test_a_manifest_comes_back_from_json_with_the_same_version(manifest: Manifest) -> None:
    back = Manifest.model_validate_json(manifest.model_dump_json())
    assert back == manifest
    assert content_version(back.input, back.method, back.files, back.calibration, back.propensity) == manifest.version


@given(manifests(), st.data())
def test_an_unknown_key_anywhere_is_refused(manifest: Manifest, data: st.DataObject) -> None:
    content = json.loads(manifest.model_dump_json())
    places = [content, content["input"], content["method"], *content["files"].values(), *content["golden"]]
    if content["calibration"] is not None:
        places += [content["calibration"], *content["calibration"]["ranks"]]
        places += [rank["map"] for rank in content["calibration"]["ranks"]]
    if content["propensity"] is not None:
        places.append(content["propensity"])
    data.draw(st.sampled_from(places))["unheard_of"] = 1
    with pytest.raises(ValidationError, match="unheard_of"):
        Manifest.model_validate_json(json.dumps(content))


@given(st.lists(TEXTS))
def test_labels_come_back_from_their_table(strings: list[str]) -> None:
    lines, offsets = encode_labels(strings, strings[::-1])
    table = LabelTable(np.frombuffer(lines, dtype=np.uint8), offsets)
    assert [table.id(row) for row in range(len(table))] == strings
    assert [table.text(row) for row in range(len(table))] == strings[::-1]
