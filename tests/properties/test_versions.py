"""Loads, swaps, splits, shadows, changes of labels, crashes, restarts and questions, held against a few lines."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from service.bundle.reader import read_manifest
from tests.bundles import Spec, write_bundle
from tests.service.serving import TEXT, Service, administered

BUNDLES = ("v0", "v1", "v2")
WEIGHTS = st.sampled_from([0.0, 1.0, 3.0])
ASKED = 4
LABELS = 12
OWN = tuple(f"label-{row:02d}" for row in range(LABELS))
NEW = ("new-1", "new-2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("machine")
    for number, bundle in enumerate(BUNDLES):
        write_bundle(folder / bundle, Spec(method="unidec", name="tags", label_count=LABELS, seed=number))
    (folder / "broken").mkdir()
    return folder


class Versions(RuleBasedStateMachine):
    """A service of one model.

    `placings` is what should be loaded: weight and shadow by version. `disabled` and `added` are its labels' changes.
    """

    folder: Path

    def __init__(self) -> None:
        super().__init__()
        self._stack = ExitStack()
        self.service: Service
        self.placings: dict[str, tuple[float, float]] = {}
        self.dead: set[str] = set()
        self.disabled: set[str] = set()
        self.added: set[str] = set()
        self._journals = tempfile.TemporaryDirectory()

    @initialize()
    def start(self) -> None:
        journals = Path(self._journals.name)
        service = administered(self.folder / "v0", models_dir=self.folder, labels_dir=journals)
        self.service = self._stack.enter_context(service)
        self.placings = {self.version("v0"): (1.0, 0.0)}
        self.dead.clear()

    def teardown(self) -> None:
        self._stack.close()
        self._journals.cleanup()

    def version(self, bundle: str) -> str:
        return read_manifest(self.folder / bundle).version

    def load(self, bundle: str, **placing: float) -> Any:
        return self.service.client.post("/admin/models", json={"bundle": bundle, "wait": True, **placing})

    @staticmethod
    def answers(placings: dict[str, tuple[float, float]]) -> bool:
        return any(weight for weight, _ in placings.values())

    @rule(bundle=st.sampled_from(BUNDLES))
    def replace(self, bundle: str) -> None:
        assert self.load(bundle).status_code == 200
        self.placings = {self.version(bundle): (1.0, 0.0)}
        self.dead.clear()

    @rule(bundle=st.sampled_from(BUNDLES), weight=WEIGHTS)
    def add(self, bundle: str, weight: float) -> None:
        wanted = self.placings | {self.version(bundle): (weight, 0.0)}
        status = self.load(bundle, weight=weight).status_code
        self.expect(status, wanted, revived=self.version(bundle), refused=422)

    @rule(bundle=st.sampled_from(BUNDLES))
    def shadow(self, bundle: str) -> None:
        wanted = self.placings | {self.version(bundle): (0.0, 1.0)}
        self.expect(self.load(bundle, shadow=1.0).status_code, wanted, revived=self.version(bundle), refused=422)

    @rule(bundle=st.sampled_from(BUNDLES), weight=WEIGHTS)
    def place(self, bundle: str, weight: float) -> None:
        version = self.version(bundle)
        response = self.service.client.patch(f"/admin/models/tags:{version}", json={"weight": weight})
        if version not in self.placings:
            assert response.status_code == 404
        else:
            self.expect(response.status_code, self.placings | {version: (weight, 0.0)}, refused=409)

    @rule(bundle=st.sampled_from(BUNDLES))
    def retire(self, bundle: str) -> None:
        version = self.version(bundle)
        status = self.service.client.delete(f"/admin/models/tags:{version}").status_code
        if version not in self.placings:
            assert status == 404
            return
        wanted = {other: placing for other, placing in self.placings.items() if other != version}
        self.expect(status, wanted, refused=409)
        self.dead &= set(self.placings)

    @rule()
    def load_what_is_broken(self) -> None:
        assert self.load("broken").status_code == 422

    @precondition(lambda self: set(self.placings) - self.dead)
    @rule(data=st.data())
    def crash(self, data: st.DataObject) -> None:
        version = data.draw(st.sampled_from(sorted(set(self.placings) - self.dead)))
        (model,) = [model for model in self.service.registry.models if model.version == version]
        model._launched.process.kill()
        while model.healthy:
            self.service.client.get("/livez")
        self.dead.add(version)

    @rule()
    def restart(self) -> None:
        self._stack.close()
        self.start()

    @rule(
        disable=st.sets(st.sampled_from([*OWN[:3], *NEW])),
        enable=st.sets(st.sampled_from([*OWN[:3], *NEW])),
        add=st.sets(st.sampled_from([*NEW, OWN[0]])),
        remove=st.sets(st.sampled_from(NEW), max_size=1),
    )
    def change_labels(self, disable: set[str], enable: set[str], add: set[str], remove: set[str]) -> None:
        """Ids that are wrong, twice or nobody's among them."""
        ids = {"disable": sorted(disable), "enable": sorted(enable), "remove": sorted(remove)}
        new = [{"id": id_, "text": TEXT} for id_ in sorted(add)]
        status = self.service.client.post("/admin/models/tags/labels", json=ids | {"add": new}).status_code
        contradicts = disable & enable or (disable | enable | add) & remove
        there = {*OWN, *self.added, *add}
        if contradicts or not disable | enable | add | remove:
            assert status == 422
        elif not remove <= self.added:
            assert status == 409
        elif not set(self.placings) - self.dead:
            assert status == 503
        elif not disable | enable <= there:
            assert status == 422
        elif OWN[0] in add:
            assert status == 409
        else:
            assert status == 200
            self.added = (self.added | add) - remove
            self.disabled = (self.disabled | disable) - enable - remove

    @rule()
    def ask(self) -> None:
        answering = {version for version, (weight, _) in self.placings.items() if weight}
        for _ in range(ASKED):
            response = self.service.predict({"queries": [TEXT], "k": LABELS + len(NEW)})
            if response.status_code == 200:
                assert response.json()["version"] in answering - self.dead
                found = [label["id"] for label in response.json()["predictions"][0]["labels"]]
                assert sorted(found) == sorted({*OWN, *self.added} - self.disabled)
            else:
                assert response.status_code == 503
                assert answering & self.dead

    @rule(bundle=st.sampled_from(BUNDLES))
    def ask_by_version(self, bundle: str) -> None:
        version = self.version(bundle)
        response = self.service.predict({"queries": [TEXT], "model": f"tags:{version}"})
        expected = 503 if version in self.dead else 200 if version in self.placings else 404
        # Where all are dead, nobody asks which of them was meant.
        alive = {version for version, (_, shadow) in self.placings.items() if not shadow} - self.dead
        assert response.status_code == (expected if alive else 503)

    @invariant()
    def the_service_says_what_is_loaded(self) -> None:
        if not self.placings:
            return  # before the start
        models = self.service.client.get("/v1/models").json()["models"]
        assert {model["version"]: (model["weight"], model["shadow"]) for model in models} == self.placings
        assert {model["version"] for model in models if not model["ready"]} == self.dead
        unwell = {version for version, (_, shadow) in self.placings.items() if not shadow} & self.dead
        assert self.service.client.get("/readyz").status_code == (503 if unwell else 200)

    def expect(
        self, status: int, wanted: dict[str, tuple[float, float]], *, refused: int, revived: str | None = None
    ) -> None:
        """What an administrator asked for is done if somebody answers then, else refused."""
        if not self.answers(wanted):
            assert status == refused
            return
        assert status == 200
        self.placings = wanted
        if revived is not None:
            self.dead.discard(revived)


def test_versions_are_what_was_asked_for(folder: Path) -> None:
    run_state_machine_as_test(
        type("Versions", (Versions,), {"folder": folder}),
        settings=settings(
            max_examples=8, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
