from __future__ import annotations

import contextlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.bundle import LabelTable, encode_labels
from service.errors import InvalidRequest, MalformedBody
from service.schemas import (
    FeatureVector,
    PredictRequest,
    PredictResponse,
    encode_prediction,
    encode_response,
    feature_queries,
    parse_predict,
)
from service.settings import Settings

SETTINGS = Settings(max_k=10, max_queries=3)

WRONG: list[tuple[str, type[Exception], str]] = [
    ("", MalformedBody, r"the body is not JSON: EOF while parsing a value at line 1 column 0"),
    ("{", MalformedBody, r"the body is not JSON: EOF while parsing an object"),
    ('{"queries": ["\\ud800"]}', MalformedBody, r"the body is not JSON"),
    ("[" * 1000, MalformedBody, r"recursion limit"),
    ("[]", InvalidRequest, r"the body: input should be an object, found a list"),
    ("null", InvalidRequest, r"the body: input should be an object, found null"),
    ("{}", InvalidRequest, r"expected either queries or features, found neither"),
    ('{"queries": ["a"], "features": []}', InvalidRequest, r"either queries or features, found both"),
    ('{"queries": []}', InvalidRequest, r"queries: expected 1 to 3 entries, found 0"),
    ('{"queries": ["a", "b", "c", "d"]}', InvalidRequest, r"queries: expected 1 to 3 entries, found 4"),
    ('{"queries": ["a", " \\n"]}', InvalidRequest, r"queries\[1\]: expected a text, found an empty one"),
    ('{"queries": "a"}', InvalidRequest, r'queries: input should be a valid array, found "a"'),
    ('{"queries": ["a", 7]}', InvalidRequest, r"queries\[1\]: input should be a valid string, found 7"),
    ('{"queries": [1, 2, 3, 4, 5]}', InvalidRequest, r"queries\[2\]: .*; and 2 more"),
    ('{"queries": ["a"], "k": 0}', InvalidRequest, r"k: input should be greater than or equal to 1, found 0"),
    ('{"queries": ["a"], "k": 11}', InvalidRequest, r"k: expected at most 10, found 11"),
    ('{"queries": ["a"], "k": 5.0}', InvalidRequest, r"k: input should be a valid integer, found 5.0"),
    ('{"queries": ["a"], "k": true}', InvalidRequest, r"k: input should be a valid integer, found true"),
    ('{"queries": ["a"], "k": "5"}', InvalidRequest, r'k: input should be a valid integer, found "5"'),
    ('{"queries": ["a"], "min_score": NaN}', InvalidRequest, r"min_score: input should be a finite number"),
    ('{"queries": ["a"], "min_score": 1e39}', InvalidRequest, r"min_score: input should be less than"),
    ('{"queries": ["a"], "timeout_ms": 0}', InvalidRequest, r"timeout_ms: .* greater than or equal to 1, found 0"),
    (
        '{"queries": ["a"], "filters": {}}',
        InvalidRequest,
        r"filters: this field is unknown; known are queries, ",
    ),
    ('{"queries": ["a"], "filter": {}}', InvalidRequest, r"filter: expected allow, deny or groups, found none of them"),
    ('{"queries": ["a"], "filter": {"allow": []}}', InvalidRequest, r"filter\.allow: .* at least 1 item"),
    ('{"queries": ["a"], "filter": {"groups": []}}', InvalidRequest, r"filter\.groups: .* at least 1 item"),
    (
        '{"queries": ["a"], "filter": {"deny": ["b", 7]}}',
        InvalidRequest,
        r"filter\.deny\[1\]: .* string, found 7",
    ),
    ('{"queries": ["a"], "filter": {"x": 1}}', InvalidRequest, r"filter\.x: .*; known are allow, deny, groups"),
    ('{"features": [{"indices": [1]}]}', InvalidRequest, r"features\[0\].values: field required"),
    ('{"features": [{"indices": [], "values": []}]}', InvalidRequest, r"features\[0\]: expected at least one index"),
    ('{"features": [{"indices": [1], "values": []}]}', InvalidRequest, r"as many values as indices, found 0 and 1"),
    ('{"features": [{"indices": [4, 4], "values": [1, 1]}]}', InvalidRequest, r"distinct indices, found one twice"),
    ('{"features": [{"indices": [-1], "values": [1]}]}', InvalidRequest, r"features\[0\].indices\[0\]: .* found -1"),
    ('{"features": [{"indices": [1], "values": [1e99]}]}', InvalidRequest, r"features\[0\].values\[0\]: "),
    ('{"features": [{"indices": [1], "values": [1], "x": 1}]}', InvalidRequest, r"x: .*; known are indices, values"),
]


@pytest.mark.parametrize(("body", "error", "sentence"), WRONG)
def test_a_wrong_body_is_refused_with_the_place_and_what_was_found(
    body: str, error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        parse_predict(body.encode(), SETTINGS)


def test_bytes_that_are_no_unicode_are_no_json() -> None:
    with pytest.raises(MalformedBody):
        parse_predict(b'{"queries": ["\xff"]}', SETTINGS)


def test_a_long_value_is_shown_in_part() -> None:
    with pytest.raises(InvalidRequest) as info:
        parse_predict(json.dumps({"queries": "x" * 10_000}).encode(), SETTINGS)
    assert len(str(info.value)) < 200


def test_defaults_are_those_of_the_contract() -> None:
    assert parse_predict(b'{"queries": ["a"]}', SETTINGS) == PredictRequest(queries=["a"], k=5)


@given(
    st.binary(max_size=200)
    | st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from([*PredictRequest.model_fields, *FeatureVector.model_fields, "x"]), inner)
        ),
        max_leaves=15,
    ).map(lambda value: json.dumps(value).encode())
)
def test_no_body_is_too_strange(body: bytes) -> None:
    with contextlib.suppress(MalformedBody, InvalidRequest):
        request = parse_predict(body, SETTINGS)
        assert request.queries or request.features


def test_an_index_beyond_the_model_is_refused() -> None:
    vectors = [FeatureVector(indices=[0], values=[1.0]), FeatureVector(indices=[3, 9], values=[1.0, 2.0])]
    assert [list(query.indices) for query in feature_queries(vectors, 10)] == [[0], [3, 9]]
    with pytest.raises(InvalidRequest, match=r"features\[1\].indices: expected numbers below 9, found 9"):
        feature_queries(vectors, 9)


def label_table(*, texts: bool) -> LabelTable:
    rows = range(5)
    lines, offsets = encode_labels([f"id{row}" for row in rows], [f"tëxt{row}" for row in rows] if texts else None)
    return LabelTable(np.frombuffer(lines, dtype=np.uint8), offsets)


IDS = np.array([4, 0, 2], dtype=np.int64)
SCORES = np.array([0.93, 0.9, -1.5], dtype=np.float32)


def test_an_answer_is_what_the_documented_model_describes() -> None:
    prediction = encode_prediction(label_table(texts=True), IDS, SCORES, None)
    body = encode_response("name", "version", [prediction])
    assert json.loads(body) == {
        "model": "name",
        "version": "version",
        "predictions": [
            {
                "labels": [
                    {"id": "id4", "text": "tëxt4", "score": 0.93},
                    {"id": "id0", "text": "tëxt0", "score": 0.9},
                    {"id": "id2", "text": "tëxt2", "score": -1.5},
                ]
            }
        ],
    }
    assert PredictResponse.model_validate_json(body).model_dump(exclude_unset=True) == json.loads(body)


def test_a_label_without_text_has_none() -> None:
    prediction = encode_prediction(label_table(texts=False), IDS, SCORES, None)
    assert [set(label) for label in json.loads(prediction)["labels"]] == [{"id", "score"}] * 3


@pytest.mark.parametrize(("min_score", "count"), [(None, 3), (-1.5, 3), (0.0, 2), (0.9, 2), (0.93, 1), (0.94, 0)])
def test_min_score_keeps_labels_at_or_above_it_as_they_are_printed(min_score: float | None, count: int) -> None:
    prediction = json.loads(encode_prediction(label_table(texts=True), IDS, SCORES, min_score))
    assert len(prediction["labels"]) == count
