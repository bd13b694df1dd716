"""Filters over HTTP: what is left of the answer without one, whatever else is in the batch."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from service.bundle import layout
from tests.bundles import METHODS, Spec, write_bundle
from tests.service.http.test_app import is_problem
from tests.service.serving import TEXT, Service, blocked, serving

GROUPS = ("at", "de")
Labels = list[dict[str, Any]]


@pytest.fixture(scope="module", params=METHODS)
def service(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Service]:
    path = tmp_path_factory.mktemp("filters") / "bundle"
    write_bundle(path, Spec(method=request.param, groups=GROUPS, calibrated=True))
    with serving(path) as service:
        yield service


def labels(service: Service, text: str = TEXT, k: int = 40, **fields: object) -> Labels:
    response = service.predict({"queries": [text], "k": k, **fields})
    assert response.status_code == 200, response.text
    found: Labels = response.json()["predictions"][0]["labels"]
    return found


def same(found: Labels, expected: Labels) -> bool:
    scores = [[label["score"] for label in answer] for answer in (found, expected)]
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-5, atol=1e-6)
    return [label["id"] for label in found] == [label["id"] for label in expected]


def test_what_is_left_keeps_its_scores_and_order(service: Service) -> None:
    whole = labels(service)
    ids = [label["id"] for label in whole]
    few, many = ids[5:30:3], ids[:33]
    assert same(labels(service, filter={"allow": few}), [label for label in whole if label["id"] in few])
    assert same(labels(service, filter={"allow": few * 2}, k=4), [label for label in whole if label["id"] in few][:4])
    assert same(labels(service, filter={"deny": many}), whole[33:])
    assert same(labels(service, filter={"deny": ids[:3]}, k=2), whole[3:5])
    assert same(labels(service, filter={"deny": []}, k=2), whole[:2])
    assert labels(service, filter={"allow": few, "deny": few}) == []


def test_groups_are_those_of_the_bundle(service: Service) -> None:
    bits_GW = np.load(service.model._launched.order.path / layout.LABEL_GROUPS)
    members = np.unpackbits(bits_GW, axis=1, bitorder="little")[:, :40].astype(bool)
    whole = labels(service)
    for names, wanted in ((["at"], members[0]), (["de", "at"], members.any(axis=0))):
        expected = [label for label in whole if wanted[int(label["id"].removeprefix("label-"))]]
        assert same(labels(service, filter={"groups": names}), expected)
    detail = service.client.get(f"/v1/models/{service.model.name}").json()
    assert detail["groups"] == dict(zip(GROUPS, members.sum(axis=1).tolist(), strict=True))


def test_min_score_comes_after_the_filter(service: Service) -> None:
    whole = labels(service)
    bound = whole[8]["score"]
    ids = [label["id"] for label in whole[::2]]
    kept = labels(service, filter={"allow": ids}, min_score=bound)
    assert {label["id"] for label in kept} == {
        label["id"] for label in whole if label["id"] in ids and label["score"] >= bound
    }


def test_what_is_unknown_fails_its_own_request_alone(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though others are prepared and computed with it."""
    expected = labels(service, k=3)
    with ThreadPoolExecutor(8) as pool:
        with blocked(service.engine, monkeypatch) as wants_to_run:
            plug = pool.submit(labels, service)
            wants_to_run.wait()
            bad = pool.submit(
                service.predict, {"queries": [TEXT, TEXT], "filter": {"allow": [expected[0]["id"], "nothing"]}}
            )
            good = [pool.submit(labels, service, k=3), pool.submit(labels, service, k=3, filter={"deny": []})]
        assert is_problem(bad.result(), 422, r'filter\.allow\[1\]: expected the id of a label of tiny, found "nothing"')
        assert all(same(one.result(), expected) for one in good)
        assert len(plug.result()) == 40


def test_different_filters_share_a_batch(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = labels(service)
    ids = [label["id"] for label in whole]
    wanted = [ids[place::7] for place in range(7)]
    with ThreadPoolExecutor(10) as pool:
        with blocked(service.engine, monkeypatch) as wants_to_run:
            plug = pool.submit(labels, service)
            wants_to_run.wait()
            answers = [pool.submit(labels, service, k=5, filter={"allow": allow}) for allow in wanted]
            plain = pool.submit(labels, service, k=5)
            while service.model._client.queued_rows <= len(wanted) and not plain.done():
                continue
        for answer, allow in zip(answers, wanted, strict=True):
            assert same(answer.result(), [label for label in whole if label["id"] in allow][:5])
        assert same(plain.result(), whole[:5])
        assert len(plug.result()) == 40
    version = service.model.version
    in_one = [f'xmc_batch_rows_bucket{{le="{rows}",model="tiny",version="{version}"}}' for rows in ("4.0", "8.0")]
    metrics = dict(line.rsplit(" ", 1) for line in service.client.get("/metrics").text.splitlines())
    assert float(metrics[in_one[1]]) == float(metrics[in_one[0]]) + 1


def test_ways_are_counted(service: Service) -> None:
    def counted(mode: str) -> float:
        version = service.model.version
        start = f'xmc_filtered_queries_total{{mode="{mode}",model="tiny",version="{version}"}} '
        text = service.client.get("/metrics").text
        return next(float(line.removeprefix(start)) for line in text.splitlines() if line.startswith(start))

    whole = [label["id"] for label in labels(service)]
    before = {mode: counted(mode) for mode in ("within", "direct")}
    labels(service, k=1, filter={"allow": [whole[0]]})
    labels(service, k=1, filter={"allow": [whole[-1]]})
    assert {mode: counted(mode) - before[mode] for mode in before} == {"within": 1, "direct": 1}
