"""Labels by their texts alone beside trained ones: what new labels are worth, and what they take from others.

    python -m tests.benchmarks.zero_shot BUNDLE --data sample --labels 300 --scales 1 0.9 0.8

Labels that the test split has are drawn, disabled, and added again under other ids by their texts, so that their true
rows are known and nothing that was learned of them helps. Printed are, for the bundle as trained, without these labels,
and with them added at the bundle's own scale and at others: recall at 5 of their pairs, P@1 and P@5 of all labels, how
often one of them is answered, and how often that is wrong.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np

from service.bundle import Bundle, open_bundle
from service.bundle.searching import UnidecSection
from service.engine import Engine
from service.live.changes import LabelChange, NewLabel
from tests.changes import make
from training.data.records import open_named

K, BATCH = 5, 64
ADDED = "added:"


def main() -> None:
    """Compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--data", default="sample")
    parser.add_argument("--labels", type=int, default=300)
    parser.add_argument("--points", type=int, default=3000)
    parser.add_argument("--scales", type=float, nargs="*", default=[])
    chosen = parser.parse_args()
    source = open_named(chosen.data)
    points = list(islice(source.points("tst"), chosen.points))
    texts = [point.text or "" for point in points]
    true = [{source.label_ids[row] for row in point.labels.tolist()} for point in points]
    seen = sorted(set.union(*true))
    taken = np.random.default_rng(0).choice(seen, size=min(chosen.labels, len(seen)), replace=False).tolist()
    by_id = dict(zip(source.label_ids, source.label_texts or (), strict=True))
    new = tuple(NewLabel(id=ADDED + id_, text=by_id[id_]) for id_ in taken)
    bundle = open_bundle(chosen.bundle)
    print(f"{len(points):,} points, {len(taken)} labels taken\n{'':16s}    R@5    P@1    P@5  answered  wrong")
    report("trained", answers(Engine.open(bundle, device="cpu"), texts), true, set(taken))
    away = LabelChange(disable=tuple(taken))
    report("without them", answers(changed(bundle, away), texts), true, set(taken))
    for scale in (own_scale(bundle), *chosen.scales):
        engine = changed(scaled(bundle, scale), away.model_copy(update={"add": new}))
        report(f"added, x {scale:g}", answers(engine, texts), true, set(taken))


def own_scale(bundle: Bundle) -> float:
    """The scale that export has measured."""
    assert isinstance(bundle.manifest.method, UnidecSection)
    assert bundle.manifest.method.reading is not None, "expected a bundle that can take new labels"
    return bundle.manifest.method.reading.scale


def scaled(bundle: Bundle, scale: float) -> Bundle:
    """The same bundle with another scale."""
    method = bundle.manifest.method
    assert isinstance(method, UnidecSection)
    assert method.reading is not None
    reading = method.reading.model_copy(update={"scale": scale})
    manifest = bundle.manifest.model_copy(update={"method": method.model_copy(update={"reading": reading})})
    return replace(bundle, manifest=manifest)


def changed(bundle: Bundle, change: LabelChange) -> Engine:
    """An engine whose labels are changed."""
    engine = Engine.open(bundle, device="cpu")
    make(engine, change)
    return engine


def answers(engine: Engine, texts: Sequence[str]) -> Iterator[list[str]]:
    """The ids of each text's labels, those that were added by the ids that they had before."""
    for start in range(0, len(texts), BATCH):
        answer = engine.run(engine.prepare(texts[start : start + BATCH]), K)
        for place, ids_K in enumerate(answer.top.ids_QK):
            filtered = answer.filtered.get(place)
            rows = ids_K if filtered is None else filtered.ids_K
            yield [engine.labels.id(row).removeprefix(ADDED) for row in rows.tolist()]


def report(name: str, found: Iterator[list[str]], true: Sequence[set[str]], taken: set[str]) -> None:
    """Print one line."""
    pairs = hits = first = right = answered = wrong = 0
    for labels, wanted in zip(found, true, strict=True):
        pairs += len(wanted & taken)
        hits += len(wanted & taken & set(labels))
        first += labels[0] in wanted
        right += len(wanted & set(labels))
        answered += len(taken & set(labels))
        wrong += len(taken & set(labels) - wanted)
    shares = hits / pairs, first / len(true), right / K / len(true)
    print(f"{name:16s} {' '.join(f'{100 * share:6.2f}' for share in shares)} {answered:9,d} {wrong:6,d}", flush=True)


if __name__ == "__main__":
    main()
