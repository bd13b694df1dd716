"""The service against its own documentation, by requests that nobody thought of."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from service.access.keys import line_of, new_secret
from tests.bundles import Spec, write_bundle
from tests.service.serving import running

CONFIG = Path(__file__).with_name("schemathesis.toml")
EXAMPLES = 8


def test_no_request_leads_beyond_what_is_documented(tmp_path: Path) -> None:
    """All phases: examples, edges of the schema, random requests, and sequences of them."""
    for number, method in enumerate(("mach", "unidec")):
        write_bundle(tmp_path / method, Spec(name=method, method=method, seed=number))
    secret = new_secret()
    keys = tmp_path / "keys"
    keys.write_text(line_of("fuzzer", secret, ()))
    arguments = ("--bundle", tmp_path / "mach", "--models-dir", tmp_path, "--admin-keys-file", keys)
    with running(*arguments) as service:
        command = [str(Path(sys.executable).with_name("schemathesis")), f"--config-file={CONFIG}", "run"]
        command += [f"{service.url}/openapi.json", "--max-examples", str(EXAMPLES), "--generation-deterministic"]
        command += ["--continue-on-failure", "--no-color", "--warnings", "off", "-H", f"X-API-Key: {secret}"]
        fuzzer = subprocess.run(command, check=False, cwd=tmp_path, capture_output=True, text=True)
        assert fuzzer.returncode == 0, fuzzer.stdout + fuzzer.stderr
        assert re.search(r"(\d{3,}) generated, \1 passed", fuzzer.stdout), fuzzer.stdout
        assert service.stop() == 0
    assert [line for line in service.log if line["level"] in ("error", "critical")] == []
