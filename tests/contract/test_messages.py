"""The messages of gRPC: made from the file beside them, and the same on the wire as those of the public protocol."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.descriptor import Descriptor
from tritonclient.grpc import service_pb2

from service.rpc import inference_pb2
from service.rpc.server import SERVICE

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "service" / "rpc"


def test_the_command_in_the_file_makes_what_is_beside_it(tmp_path: Path) -> None:
    source = (FOLDER / "inference.proto").read_text(encoding="utf-8")
    (command,) = re.findall(r"^// +(python -m grpc_tools.*)$", source, re.MULTILINE)
    arguments = shlex.split(command.replace("_out=.", f"_out={tmp_path}"))
    subprocess.run([sys.executable, *arguments[1:]], cwd=ROOT, check=True)
    for name in ("inference_pb2.py", "inference_pb2.pyi"):
        made = (tmp_path / "service" / "rpc" / name).read_text(encoding="utf-8")
        assert (FOLDER / name).read_text(encoding="utf-8") == made


@pytest.mark.parametrize("name", sorted(inference_pb2.DESCRIPTOR.message_types_by_name))
def test_messages_are_the_public_ones_on_the_wire(name: str) -> None:
    ours, theirs = (module.DESCRIPTOR.message_types_by_name[name] for module in (inference_pb2, service_pb2))
    assert on_the_wire(ours).items() <= on_the_wire(theirs).items()


def test_the_service_has_its_public_name() -> None:
    assert service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name == SERVICE


def on_the_wire(message: Descriptor) -> dict[str, object]:
    """Number and kind of each field, and the same of the messages within."""
    found: dict[str, object] = {}
    for field in message.fields:
        found[field.name] = (field.number, field.type, field.is_repeated)
    for inner in message.nested_types:
        for path, kind in on_the_wire(inner).items():
            found[f"{inner.name}.{path}"] = kind
    return found
