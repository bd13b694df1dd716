"""From a running service's answers to their measures: what it logs is what `xmc-train evaluate` reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.bundles import Spec, write_bundle
from tests.service.serving import serving
from training.cli import DONE, main


def test_a_service_is_measured_by_its_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_bundle(tmp_path / "tags", Spec(name="tags"))
    relevant = []
    with serving(tmp_path / "tags", prediction_log=tmp_path / "log") as service:
        for number, queries in enumerate((["a fast web server"], ["python", "mail client"])):
            answer = service.predict({"queries": queries, "k": 3}, **{"X-Request-Id": f"r{number}"}).json()
            # The second best was right, always.
            for position, prediction in enumerate(answer["predictions"]):
                relevant.append((f"r{number}", position, prediction["labels"][1]["id"]))
        identity = service.model.identity
    feedback = tmp_path / "feedback.csv"
    feedback.write_text(
        "request_id,position,labels\n" + "".join(f"{id_},{place},{label}\n" for id_, place, label in relevant)
    )
    options = ["--predictions", str(tmp_path / "log"), "--feedback", str(feedback), "--k", "1,2,3"]
    assert main(["evaluate", *options, "--json", str(tmp_path / "m.json")]) == DONE
    measures = json.loads((tmp_path / "m.json").read_text())[identity]
    assert (measures["predictions"], measures["with_feedback"]) == (3, 3)
    assert (measures["P@1"], measures["P@2"], measures["R@2"]) == (0, 50, 100)
    assert f"{identity}: 3 predictions, 3 with feedback" in capsys.readouterr().out
