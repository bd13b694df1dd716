"""Models of other libraries: what their runner leaves in a file, read with the same suspicion as any input."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from training.compare.truth import Truth
from training.overrides import WrongOption

SHOWN = 12  # characters of a digest


class Peer(BaseModel):
    """A trained and measured model of another library; `tests/benchmarks/peers/run.py` writes it.

    Attributes:
        name: in the report.
        library: name and version.
        settings: what was set, in words.
        test_digest: of the test split that was ranked; see `training.compare.truth.Truth.digest`.
        ranking: file beside this one, as `training.ranking` describes it.
        read_seconds: wall clock from opening the data to its vectors.
        train_seconds: wall clock of fitting, and of saving the model.
        cpu_seconds: of both, all threads.
        model_bytes: of the saved model, what turns texts into vectors left out.
        libraries_bytes: memory before any data was read.
        peak_bytes: the most memory held until the model was saved.
        queries: asked one at a time, for the latencies.
        p50_ms: median from vector to labels.
        p99_ms: 99th percentile of the same.
        prepare_p50_ms: median from text to vector.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1)
    library: str
    settings: str
    test_digest: str
    ranking: str
    read_seconds: float
    train_seconds: float
    cpu_seconds: float
    model_bytes: int
    libraries_bytes: int
    peak_bytes: int
    queries: int
    p50_ms: float
    p99_ms: float
    prepare_p50_ms: float


def read_peer(file: Path, truth: Truth) -> Peer:
    """Read a peer's file.

    Raises:
        WrongOption: it is missing, malformed, or of other test rows.
    """
    try:
        peer = Peer.model_validate_json(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise WrongOption(f"--peers: {file} cannot be read: {error}") from error
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise WrongOption(f"--peers: {file}: {problems}") from error
    if peer.test_digest != truth.digest:
        raise WrongOption(
            f"--peers: {file}: expected a ranking of the test split with labels {truth.digest[:SHOWN]}…, "
            f"found one of {peer.test_digest[:SHOWN]}…"
        )
    return peer
