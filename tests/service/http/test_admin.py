"""Models that are loaded, weighed, shadowed and let go while the service runs."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from service.bundle import layout
from service.bundle.reader import read_manifest
from tests.bundles import Spec, write_bundle
from tests.service.serving import TEXT, Service, administered, blocked

JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three versions of one model, another model, and a damaged bundle."""
    folder = tmp_path_factory.mktemp("models")
    for number in range(3):
        write_bundle(folder / f"v{number}", Spec(name="tags", seed=number))
    write_bundle(folder / "other", Spec(name="other", method="declare"))
    write_bundle(folder / "vectors", Spec(name="tags", input="features", seed=9))
    shutil.copytree(folder / "v1", folder / "damaged")
    file = folder / "damaged" / layout.MACH_BUCKETS
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    return folder


@pytest.fixture
def service(folder: Path) -> Iterator[Service]:
    with administered(folder / "v0", models_dir=folder) as service:
        yield service


def version(folder: Path, bundle: str) -> str:
    return read_manifest(folder / bundle).version


def load(service: Service, bundle: str, **body: Any) -> Any:
    return service.client.post("/admin/models", json={"bundle": bundle, "wait": True, **body})


def answering(service: Service, requests: int = 1, model: str | None = None) -> Counter[str]:
    """How many of some requests each version answers."""
    body: dict[str, Any] = {"queries": [TEXT]} if model is None else {"queries": [TEXT], "model": model}
    return Counter(service.predict(body).json()["version"] for _ in range(requests))


def label_ids(service: Service, model: str) -> set[str]:
    """The labels that a model or version answers."""
    (prediction,) = service.predict({"queries": [TEXT], "model": model}).json()["predictions"]
    return {label["id"] for label in prediction["labels"]}


def metric(service: Service, name: str, **labels: str) -> float | None:
    """The value of one series."""
    return service.metrics.registry.get_sample_value(name, labels)


def wait_for(service: Service, value: float, name: str, **labels: str) -> None:
    while metric(service, name, **labels) != value:
        service.client.get("/livez")


def test_without_an_admin_key_nothing_is_changed(service: Service, folder: Path) -> None:
    del service.client.headers["x-api-key"]
    for method, path in (("POST", "/admin/models"), ("DELETE", "/admin/models/tags"), ("GET", "/admin/loads")):
        assert service.client.request(method, path).status_code == 401
    assert answering(service) == {version(folder, "v0"): 1}


def test_a_loaded_bundle_answers_in_the_place_of_the_version_before(service: Service, folder: Path) -> None:
    old, new = version(folder, "v0"), version(folder, "v1")
    assert set(answering(service)) == {old}
    response = load(service, "v1")
    assert response.status_code == 200
    assert response.json()["state"] == "serving"
    assert response.json()["model"] == f"tags:{new}"
    assert set(answering(service, 5)) == {new}
    assert [model["version"] for model in service.client.get("/v1/models").json()["models"]] == [new]
    assert service.predict({"queries": [TEXT], "model": f"tags:{old}"}).status_code == 404
    assert metric(service, "xmc_model_swaps_total", result="done") == 1
    while old in service.client.get("/metrics").text:  # its series go when its process has ended
        continue


def test_a_load_goes_on_in_the_background(service: Service, folder: Path) -> None:
    response = service.client.post("/admin/models", json={"bundle": "v1"})
    assert response.status_code == 202
    assert response.json()["state"] in ("waiting", "loading")
    where = response.headers["location"]
    while service.client.get(where).json()["state"] != "serving":
        assert service.predict({"queries": [TEXT]}).status_code == 200
    assert service.client.get(where).json()["model"] == f"tags:{version(folder, 'v1')}"
    assert service.client.get("/admin/loads").json()["loads"] == [service.client.get(where).json()]
    assert service.client.get("/admin/loads/7").status_code == 404
    assert service.client.get("/admin/loads/x").status_code == 404


def test_loads_take_turns(service: Service, folder: Path) -> None:
    places = [service.client.post("/admin/models", json={"bundle": name}).headers["location"] for name in ("v1", "v2")]
    while service.client.get(places[1]).json()["state"] != "serving":
        continue
    assert service.client.get(places[0]).json()["state"] == "serving"
    assert set(answering(service)) == {version(folder, "v2")}


def test_a_bad_bundle_leaves_the_old_version_serving_and_says_why(service: Service, folder: Path) -> None:
    response = load(service, "damaged")
    assert response.status_code == 422
    assert response.json()["title"] == "Bundle refused"
    assert re.search("bundle damaged: buckets.npy: expected sha256", response.json()["detail"])
    assert str(folder) not in response.text
    (entry,) = service.client.get("/admin/loads").json()["loads"]
    assert entry["state"] == "failed"
    assert entry["reason"] == response.json()["detail"]
    assert set(answering(service)) == {version(folder, "v0")}
    assert service.client.get("/readyz").status_code == 200
    assert metric(service, "xmc_model_swaps_total", result="failed") == 1
    assert load(service, "v1").status_code == 200


def test_bundles_come_from_the_folder_alone(folder: Path, tmp_path: Path) -> None:
    allowed = tmp_path / "allowed"
    allowed.mkdir()
    (allowed / "inside").symlink_to(folder / "v1")
    shutil.copytree(folder / "v1", allowed / "real")
    (allowed / "current").symlink_to("real")
    with administered(folder / "v0", models_dir=allowed) as service:
        for name in ("inside", "..", ".", "", "../v1", str(folder / "v1"), "real/", "missing", "\0"):
            response = load(service, name)
            assert response.status_code == 404, name
            assert str(folder) not in response.text.replace(name, "")
        assert "there are current, real" in response.json()["detail"]
        assert load(service, "current").status_code == 200
    with administered(folder / "v0") as service:
        response = load(service, "v1")
        assert response.status_code == 409
        assert "XMC_MODELS_DIR" in response.json()["detail"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "bundle: field required"),
        ({"bundle": "v1", "weight": 1.0, "shadow": 1.0}, "expected weight or shadow, found both"),
        ({"bundle": "v1", "weight": -1.0}, "weight: .*, found -1"),
        ({"bundle": "v1", "shadow": 1.5}, "shadow: .*, found 1.5"),
        ({"bundle": "v1", "name": "x"}, "name: this field is unknown; known are weight, shadow, bundle, wait"),
    ],
)
def test_wrong_fields_are_told(service: Service, body: dict[str, Any], words: str) -> None:
    response = service.client.post("/admin/models", json=body)
    assert response.status_code == 422
    assert re.search(words, response.json()["detail"]), response.json()["detail"]


def test_admin_bodies_are_declared_and_parsed_as_json(service: Service) -> None:
    assert service.client.post("/admin/models", content=b"{}").status_code == 415
    assert service.client.post("/admin/models", content=b"{", headers=JSON).status_code == 400
    assert service.client.patch("/admin/models/tags", content=b"{}", headers=JSON).status_code == 422


def test_versions_share_requests_by_their_weights(service: Service, folder: Path) -> None:
    old, new = version(folder, "v0"), version(folder, "v1")
    assert load(service, "v1", weight=3.0).status_code == 200
    shares = answering(service, 400)
    assert shares[old] + shares[new] == 400
    assert 240 < shares[new] < 360  # 300 expected, of a standard deviation of 9
    assert set(answering(service, 5, f"tags:{old}")) == {old}
    weights = {model["version"]: model["weight"] for model in service.client.get("/v1/models").json()["models"]}
    assert weights == {old: 1, new: 3}
    assert {service.client.get("/v1/models/tags").json()["version"] for _ in range(20)} == {new}
    response = service.client.patch(f"/admin/models/tags:{new}", json={"weight": 0.0})
    assert response.json()["weight"] == 0
    assert answering(service, 50) == {old: 50}
    assert answering(service, 1, f"tags:{new}") == {new: 1}
    assert service.client.patch("/admin/models/tags", json={"weight": 1.0}).status_code == 409
    assert service.client.patch(f"/admin/models/tags:{old}", json={"weight": 0.0}).status_code == 409
    assert service.client.patch("/admin/models/nothing", json={"weight": 1.0}).status_code == 404


def test_a_shadow_is_asked_and_compared_but_never_answers(service: Service, folder: Path) -> None:
    old, new = version(folder, "v0"), version(folder, "v1")
    assert load(service, "v1", shadow=1.0).status_code == 200
    assert answering(service, 20) == {old: 20}
    labels = {"model": "tags", "version": new}
    wait_for(service, 20, "xmc_shadow_requests_total", result="compared", **labels)
    assert metric(service, "xmc_shadow_agreement_count", **labels) == 20
    assert metric(service, "xmc_shadow_delay_seconds_count", **labels) == 20
    agreed = metric(service, "xmc_shadow_agreement_sum", **labels)
    common = len(label_ids(service, "tags") & label_ids(service, f"tags:{new}"))
    assert agreed == pytest.approx(20 * common / 5)
    # It may answer from now on; what it was as a shadow is over.
    assert service.client.patch(f"/admin/models/tags:{new}", json={"weight": 1.0}).json()["shadow"] == 0
    assert service.client.patch(f"/admin/models/tags:{old}", json={"weight": 0.0}).status_code == 200
    assert answering(service, 5) == {new: 5}


def test_a_shadow_without_room_is_passed_over(service: Service, folder: Path) -> None:
    new = version(folder, "v1")
    assert load(service, "v1", shadow=1.0).status_code == 200
    shadow = service.registry.models[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shadow, "has_room", lambda rows: False)
        assert service.predict({"queries": [TEXT]}).status_code == 200
    assert metric(service, "xmc_shadow_requests_total", model="tags", version=new, result="dropped") == 1


def test_a_shadow_that_fails_harms_nobody(service: Service, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new = version(folder, "v1")
    assert load(service, "v1", shadow=1.0).status_code == 200

    def fail(*_: object) -> None:
        raise ValueError("broken")

    monkeypatch.setattr(service.workers[1].engine, "run", fail)
    assert service.predict({"queries": [TEXT]}).status_code == 200
    wait_for(service, 1, "xmc_shadow_requests_total", model="tags", version=new, result="failed")


def test_a_share_of_the_requests_goes_to_a_shadow(service: Service, folder: Path) -> None:
    assert load(service, "v1", shadow=0.25).status_code == 200
    answering(service, 400)
    labels = {"model": "tags", "version": version(folder, "v1")}
    wait_for(service, 0, "xmc_queue_rows", **labels)
    results = (
        metric(service, "xmc_shadow_requests_total", result=result, **labels) for result in ("compared", "dropped")
    )
    asked = sum(result or 0 for result in results)
    assert 50 < asked < 150  # 100 expected, of a standard deviation of 9


def test_versions_side_by_side_take_the_same_queries(service: Service, folder: Path) -> None:
    response = load(service, "vectors", weight=1.0)
    assert response.status_code == 422
    assert "must take the same queries, found features and text" in response.json()["detail"]
    assert load(service, "vectors").status_code == 200  # in their place it may take others


def test_versions_and_models_are_let_go(service: Service, folder: Path) -> None:
    old, new = version(folder, "v0"), version(folder, "v1")
    response = service.client.delete("/admin/models/tags")
    assert response.status_code == 409
    assert "all that is loaded" in response.json()["detail"]
    assert load(service, "v1", weight=0.0).status_code == 200
    assert service.client.delete(f"/admin/models/tags:{old}").status_code == 409  # nobody would answer for tags
    assert service.client.delete(f"/admin/models/tags:{new}").json() == {"retired": [f"tags:{new}"]}
    assert load(service, "other").status_code == 200
    assert service.client.delete("/admin/models/tags").json() == {"retired": [f"tags:{old}"]}
    assert service.predict({"queries": [TEXT]}).json()["model"] == "other"
    assert service.client.delete("/admin/models/tags").status_code == 404


def test_what_a_version_was_asked_it_answers_before_it_goes(
    service: Service, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = version(folder, "v0")
    with ThreadPoolExecutor() as pool, blocked(service.engine, monkeypatch) as wants_to_run:
        waiting = pool.submit(service.predict, {"queries": [TEXT]})
        wants_to_run.wait()
        assert load(service, "v1").status_code == 200
        assert set(answering(service)) == {version(folder, "v1")}
        assert metric(service, "xmc_model_ready", model="tags", version=old) == 1
    assert waiting.result().json()["version"] == old


def test_a_version_may_be_loaded_anew(service: Service, folder: Path) -> None:
    first = service.model
    assert load(service, "v0").status_code == 200
    assert service.model is not first
    assert service.model.identity == first.identity
    while service.registry._leaving:
        service.client.get("/livez")
    assert metric(service, "xmc_model_ready", model="tags", version=first.version) == 1
    assert load(service, "v0", weight=1.0).status_code == 200
    assert len(service.registry.models) == 1


def test_a_model_that_stopped_is_healed_by_loading_it_again(service: Service) -> None:
    service.model._launched.process.kill()
    while service.client.get("/readyz").status_code == 200:
        continue
    assert load(service, "v0").status_code == 200
    assert service.client.get("/readyz").status_code == 200
    assert service.predict({"queries": [TEXT]}).status_code == 200


def test_a_path_tells_all_methods_that_it_answers(service: Service) -> None:
    response = service.client.post("/admin/models/tags", json={})
    assert response.status_code == 405
    assert response.headers["allow"] == "DELETE, PATCH"
    assert "only DELETE, PATCH" in response.json()["detail"]
