"""Labels that are disabled, enabled, added and removed while they are served."""

from __future__ import annotations

import http.client
import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.access.keys import line_of, new_secret
from service.errors import Conflict
from service.live.changes import LabelChange
from service.live.journal import read_journal
from service.live.proposals import Reception
from tests.bundles import METHODS, Spec, write_bundle
from tests.service.models.processes import at_most, children_of
from tests.service.serving import TEXT, Service, administered, running

NEW = {"id": "new", "text": TEXT}


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles")
    for method in METHODS:
        write_bundle(folder / method, Spec(method=method, name="tags"))
    write_bundle(folder / "again", Spec(method="unidec", name="tags", seed=5))
    write_bundle(folder / "unread", Spec(method="unidec", name="tags", reads_labels=False))
    return folder


@pytest.fixture
def journals(tmp_path: Path) -> Path:
    folder = tmp_path / "journals"
    folder.mkdir()
    return folder


@pytest.fixture
def service(bundles: Path, journals: Path) -> Iterator[Service]:
    with administered(bundles / "unidec", models_dir=bundles, labels_dir=journals) as service:
        yield service


def change(service: Service, **body: Any) -> Any:
    return service.client.post("/admin/models/tags/labels", json=body)


def labels(service: Service, k: int = 5, **body: Any) -> list[dict[str, Any]]:
    """The labels of one answer."""
    response = service.predict({"queries": [TEXT], "k": k, **body})
    assert response.status_code == 200, response.text
    (prediction,) = response.json()["predictions"]
    found: list[dict[str, Any]] = prediction["labels"]
    return found


def post(port: int, secret: str, body: dict[str, Any]) -> tuple[int, Any]:
    return asked(port, "/admin/models/tags/labels", body, secret)


def predicted(port: int, k: int = 5) -> list[str]:
    _, body = asked(port, "/predict", {"queries": [TEXT], "k": k})
    return [label["id"] for label in body["predictions"][0]["labels"]]


def asked(port: int, path: str, body: dict[str, Any], secret: str = "") -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    headers = {"Content-Type": "application/json", **({"X-API-Key": secret} if secret else {})}
    connection.request("POST", path, json.dumps(body), headers)
    response = connection.getresponse()
    content = json.loads(response.read())
    connection.close()
    return response.status, content


@pytest.mark.parametrize("method", METHODS)
def test_a_disabled_label_is_gone_at_once_and_an_enabled_one_back(bundles: Path, journals: Path, method: str) -> None:
    with administered(bundles / method, labels_dir=journals) as service:
        before = labels(service, k=8)
        ids = [label["id"] for label in before]
        response = change(service, disable=[ids[0], ids[3]])
        assert (response.status_code, response.json()) == (200, {"disabled": 2, "added": 0})
        left = [label for label in before if label["id"] not in (ids[0], ids[3])]
        assert labels(service, k=6) == left
        assert labels(service, k=3, filter={"allow": ids[:5]}) == left[:3]
        assert labels(service, filter={"allow": [ids[0]]}) == []
        assert change(service, enable=[ids[0]]).json() == {"disabled": 1, "added": 0}
        assert labels(service, k=3) == before[:3]


def test_an_added_label_is_in_the_next_answer(service: Service) -> None:
    before = labels(service)
    assert change(service, add=[NEW]).json() == {"disabled": 0, "added": 1}
    first, *others = labels(service, k=6)
    assert first == {"id": "new", "text": TEXT, "zero_shot": True, "score": pytest.approx(1, abs=1e-5)}
    assert others == before
    assert labels(service, filter={"allow": ["new"]}) == [first]
    assert labels(service, filter={"deny": ["new"]}) == before
    (explained,) = labels(service, k=1, explain=True)
    assert explained["explanation"]["encoder"] == pytest.approx(1, abs=1e-5)
    assert explained["explanation"]["classifier"] == 0


def test_an_added_label_may_be_disabled_and_removed(service: Service) -> None:
    before = labels(service)
    change(service, add=[NEW])
    change(service, disable=["new"])
    assert labels(service) == before
    assert change(service, enable=["new"]).status_code == 200
    assert labels(service)[0]["id"] == "new"
    assert change(service, remove=["new"]).json() == {"disabled": 0, "added": 0}
    assert labels(service) == before
    assert service.predict({"queries": [TEXT], "filter": {"allow": ["new"]}}).status_code == 422
    assert change(service, add=[{"id": "new", "text": "font data"}]).status_code == 200
    assert [label["text"] for label in labels(service, filter={"allow": ["new"]})] == ["font data"]


def test_many_changes_happen_together_or_not_at_all(service: Service) -> None:
    before = labels(service, k=40)
    wrong = change(service, add=[NEW], disable=[before[0]["id"], "nobody's"])
    assert wrong.status_code == 422
    assert wrong.json()["detail"] == 'disable[1]: expected the id of a label of tags, found "nobody\'s"'
    assert labels(service, k=40) == before
    assert service.client.get("/admin/models/tags/labels").json()["added"] == []
    assert change(service, add=[NEW], disable=[before[0]["id"], "new"]).status_code == 200
    assert labels(service, k=40) == before[1:]


def test_what_was_changed_can_be_asked(service: Service) -> None:
    change(service, add=[NEW], disable=["label-03"])
    assert service.client.get("/admin/models/tags/labels").json() == {
        "disabled": ["label-03"],
        "added": [NEW],
        "journal": "tags.labels.jsonl",
    }
    series = service.client.get("/metrics").text.splitlines()
    assert 'xmc_labels_disabled{model="tags"} 1.0' in series
    assert 'xmc_labels_added{model="tags"} 1.0' in series


@pytest.mark.parametrize(
    ("body", "status", "sentence"),
    [
        ({}, 422, "expected labels to disable, enable, add or remove, found none"),
        (
            {"disable": ["label-00", "label-00"]},
            422,
            'expected each label once in disable, enable and remove, found "la',
        ),
        ({"enable": ["x"]}, 422, 'enable[0]: expected the id of a label of tags, found "x"'),
        ({"add": [{"id": "label-00", "text": "x"}]}, 409, 'add[0]: "label-00" is a label of tags already'),
        (
            {"remove": ["label-00"]},
            409,
            'remove[0]: expected a label that was added while it is served, found "label-00"',
        ),
        ({"delete": []}, 422, "delete: this field is unknown; known are disable, enable, add, remove"),
    ],
)
def test_a_change_that_is_wrong_changes_nothing(
    service: Service, journals: Path, body: dict[str, Any], status: int, sentence: str
) -> None:
    response = change(service, **body)
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json")
    assert sentence in response.json()["detail"]
    assert list(journals.iterdir()) == []


def test_labels_belong_to_a_model_and_not_to_a_version(service: Service) -> None:
    path = f"/admin/models/{service.model.identity}/labels"
    for response in (service.client.get(path), service.client.post(path, json={"disable": ["label-00"]})):
        assert response.status_code == 422
        assert response.json()["detail"].startswith("labels change in all versions of a model: expected tags, found")
    assert service.client.get("/admin/models/nobody/labels").status_code == 404


@pytest.mark.parametrize(
    ("bundle", "sentence"),
    [
        ("mach", "tags cannot take new labels: MACH finds labels by buckets that are learned together; train it with"),
        ("declare", "tags cannot take new labels: DECLARE finds labels by the training rows that have them; train it"),
        ("ova", "tags cannot take new labels: each label has a classifier that is learned; train it with them"),
        ("unread", "tags was exported before label texts could be read: export it again"),
    ],
)
def test_who_has_no_label_encoder_says_why(bundles: Path, journals: Path, bundle: str, sentence: str) -> None:
    with administered(bundles / bundle, labels_dir=journals) as service:
        response = change(service, add=[NEW], disable=["label-00"])
        assert (response.status_code, response.json()["title"]) == (409, "Conflict")
        assert sentence in response.json()["detail"]
        assert list(journals.iterdir()) == []
        assert change(service, disable=["label-00"]).status_code == 200


def test_a_version_that_comes_takes_over_what_was_changed(service: Service) -> None:
    change(service, add=[NEW], disable=["label-00", "label-01"])
    assert service.client.post("/admin/models", json={"bundle": "again", "wait": True}).status_code == 200
    ids = {label["id"] for label in labels(service, k=41)}
    assert ids == {f"label-{row:02d}" for row in range(2, 40)} | {"new"}
    assert labels(service)[0]["zero_shot"] is True


def test_a_version_without_label_encoder_serves_the_others(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    change(service, add=[NEW], disable=["label-00"])
    assert service.client.post("/admin/models", json={"bundle": "mach", "wait": True}).status_code == 200
    assert {label["id"] for label in labels(service, k=41)} == {f"label-{row:02d}" for row in range(1, 40)}
    assert "does not answer the labels that were added: tags cannot take new labels: MACH" in caplog.text


def test_all_versions_change_together(service: Service) -> None:
    loaded = service.client.post("/admin/models", json={"bundle": "again", "wait": True, "weight": 0})
    assert loaded.status_code == 200
    change(service, add=[NEW], disable=["label-00"])
    for model in service.registry.models:
        ids = {label["id"] for label in labels(service, k=41, model=model.identity)}
        assert ids == {f"label-{row:02d}" for row in range(1, 40)} | {"new"}


def test_versions_that_disagree_are_all_heard_out(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that answers after another has refused: no next word comes before its answer."""
    service.client.post("/admin/models", json={"bundle": "again", "wait": True, "weight": 0})
    slow, other = (worker.engine.live for worker in service.workers)
    propose, has_refused, interrupted = slow.propose, threading.Event(), []

    def propose_later(asked: LabelChange) -> Reception:
        has_refused.wait()
        interrupted.extend(service.workers[0]._proposals._readable.poll(300))
        return propose(asked)

    def refuse(_: LabelChange) -> Reception:
        has_refused.set()
        raise Conflict("not I")

    with monkeypatch.context() as patch:
        patch.setattr(slow, "propose", propose_later)
        patch.setattr(other, "propose", refuse)
        response = change(service, disable=["label-00"])
        assert (response.status_code, response.json()["detail"]) == (409, "not I")
    assert interrupted == []
    assert change(service, disable=["label-01"]).status_code == 200
    for model in service.registry.models:
        ids = {label["id"] for label in labels(service, k=41, model=model.identity)}
        assert ids == {f"label-{row:02d}" for row in range(40) if row != 1}


def test_what_cannot_be_written_is_not_served(service: Service, journals: Path) -> None:
    change(service, disable=["label-07"])
    before, content = labels(service), (journals / "tags.labels.jsonl").read_bytes()
    with at_most(len(content)):
        response = change(service, add=[NEW])
    assert (response.status_code, response.json()["title"]) == (507, "Not saved")
    assert response.json()["detail"] == "tags.labels.jsonl could not be written: File too large; nothing has changed"
    assert labels(service) == before
    assert (journals / "tags.labels.jsonl").read_bytes() == content
    assert change(service, add=[NEW]).status_code == 200
    assert labels(service)[0]["id"] == "new"


@pytest.mark.parametrize("written", [".", "../bundle/../bundle", "../bundle/"])
def test_a_journal_lies_beside_the_bundle_however_that_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    """In it, it would be a file that the manifest does not know."""
    write_bundle(tmp_path / "bundle", Spec(method="unidec", name="tags"))
    monkeypatch.chdir(tmp_path / "bundle")
    for disabled in ("label-00", "label-01"):
        with administered(Path(written)) as service:
            assert change(service, disable=[disabled]).status_code == 200
    assert read_journal(tmp_path / "tags.labels.jsonl").disabled == ["label-00", "label-01"]


def test_a_change_needs_an_admin_key(service: Service) -> None:
    del service.client.headers["x-api-key"]
    assert change(service, disable=["label-00"]).status_code == 401
    assert service.client.get("/admin/models/tags/labels").status_code == 401


def test_what_was_acknowledged_is_there_after_kill_9(bundles: Path, tmp_path: Path) -> None:
    secret = new_secret()
    (tmp_path / "keys").write_text(line_of("root", secret, ()))
    arguments = ("--bundle", bundles / "unidec", "--admin-keys-file", tmp_path / "keys", "--labels-dir", tmp_path)
    with running(*arguments) as service:
        first = post(service.port, secret, {"add": [NEW], "disable": ["label-00"]})
        assert first == (200, {"disabled": 1, "added": 1})
        assert predicted(service.port)[0] == "new"
        for process in (service.process.pid, *children_of(service.process.pid)):
            os.kill(process, signal.SIGKILL)
        service.process.wait()
    journal = tmp_path / "tags.labels.jsonl"
    journal.write_bytes(journal.read_bytes() + b'{"at":"2026-01-01T00:00:00.000+00:00","disable":["lab')
    with running(*arguments) as service:
        ids = predicted(service.port, k=41)
        assert ids[0] == "new"
        assert "label-00" not in ids
        assert post(service.port, secret, {"disable": ["new"]}) == (200, {"disabled": 2, "added": 1})
    assert read_journal(journal).disabled == ["label-00", "new"]


def test_a_journal_that_is_damaged_stops_the_start(bundles: Path, tmp_path: Path) -> None:
    (tmp_path / "tags.labels.jsonl").write_text("{}\n")
    with running("--bundle", bundles / "unidec", "--labels-dir", tmp_path, until="expected the head") as service:
        service.wait()
    assert service.process.returncode == 1
    assert "tags.labels.jsonl:1: expected the head of a journal of labels" in "".join(
        line["message"] for line in service.log
    )
