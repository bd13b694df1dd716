"""What sets two bundles apart: what they say of themselves, their files, and how they answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.bundle import Bundle, Manifest, open_bundle
from service.bundle.manifest import FeatureQuery, FileEntry, GoldenAnswer, ScoredLabel
from service.engine import Engine
from service.errors import InvalidRequest
from service.models.queries import Features, Query

DIGEST_SHOWN = 12


@dataclass(frozen=True)
class Difference:
    """How bundle B differs from bundle A; all lists empty and the agreement 1 where they are the same.

    Attributes:
        fields: of the manifest, as "name: A's -> B's".
        files: as "name: A's -> B's".
        answers: golden answers that the manifests give to the same query otherwise.
        agreement: share of the labels in A's golden answers that B gives too, or the sentence why B cannot be asked.
        queries: number of A's golden queries.
        k: labels of the longest golden answer.
    """

    fields: list[str]
    files: list[str]
    answers: list[str]
    agreement: float | str
    queries: int
    k: int


def compare_bundles(a: Path, b: Path) -> Difference:
    """Open both bundles and compare them.

    Raises:
        BundleError: one of them is damaged.
    """
    left, right = open_bundle(a), open_bundle(b)
    golden = left.manifest.golden
    return Difference(
        fields=list(_fields(left.manifest, right.manifest)),
        files=list(_files(left.manifest.files, right.manifest.files)),
        answers=list(_answers(golden, right.manifest.golden)),
        agreement=_agreement(golden, right),
        queries=len(golden),
        k=max(len(answer.labels) for answer in golden),
    )


def _fields(a: Manifest, b: Manifest) -> Iterator[str]:
    left, right = (dict(_flat(manifest.model_dump(mode="json", exclude={"files", "golden"}))) for manifest in (a, b))
    for name in sorted(left.keys() | right.keys()):
        if left.get(name) != right.get(name):
            yield f"{name}: {_shown(left.get(name, 'none'))} -> {_shown(right.get(name, 'none'))}"


def _shown(value: object) -> str:
    """A field's value; of many numbers as many digits as can be read."""
    return ", ".join(f"{number:.6g}" for number in value) if isinstance(value, list) else str(value)


def _flat(value: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, item in value.items():
        if isinstance(item, dict):
            yield from _flat(item, f"{prefix}{key}.")
        elif isinstance(item, list) and all(isinstance(member, dict) for member in item):
            yield from _flat({str(place): member for place, member in enumerate(item)}, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", item


def _files(a: dict[str, FileEntry], b: dict[str, FileEntry]) -> Iterator[str]:
    for name in sorted(a.keys() | b.keys()):
        if a.get(name) != b.get(name):
            yield f"{name}: {_described(a.get(name))} -> {_described(b.get(name))}"


def _described(entry: FileEntry | None) -> str:
    return "none" if entry is None else f"{entry.size:,} bytes {entry.sha256[:DIGEST_SHOWN]}"


def _answers(a: tuple[GoldenAnswer, ...], b: tuple[GoldenAnswer, ...]) -> Iterator[str]:
    others = [(answer.query, answer.labels) for answer in b]
    for position, answer in enumerate(a):
        for query, labels in others:
            if query == answer.query and labels != answer.labels:
                yield f"golden query {position}: {_listed(answer.labels)} -> {_listed(labels)}"


def _listed(labels: Sequence[ScoredLabel]) -> str:
    return ", ".join(f"{label.id} {label.score:.4g}" for label in labels)


def _agreement(golden: tuple[GoldenAnswer, ...], bundle: Bundle) -> float | str:
    engine = Engine.open(bundle, device="cpu")
    shared = wanted = 0
    for answer in golden:
        expected = {label.id for label in answer.labels}
        try:
            found = engine.answer_alone(_query(answer), len(expected))
        except InvalidRequest as error:
            return error.detail
        shared += len(expected & {one.label for one in found})
        wanted += len(expected)
    return shared / wanted


def _query(answer: GoldenAnswer) -> Query:
    if isinstance(answer.query, FeatureQuery):
        return Features(answer.query.indices, answer.query.values)
    return answer.query
