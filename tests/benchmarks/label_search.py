"""What the label index of a million labels is: recall@100, latency of one query on one thread, bytes.

    xmc-train fit --data DIR --recipe unidec --out build/artifacts/labels --set training.epochs=1 method.dimensions=256
    OMP_WAIT_POLICY=PASSIVE python -m tests.benchmarks.label_search build/artifacts/labels --data DIR [DIR ...] \
        --labels 1000000

No public set has so many labels with texts. So the labels are the model's own, and beside them every distinct text of
the data folders as if it were a label: label texts and titles, and where these are too few sentences of the contents.
Each is what the model makes of it as a query, of both heads: the neighbours of a query are then other titles, as near
as titles are. Queries are first lines of test points that are no such text.

The index is chosen as `xmc-export build` does, from 64 of the queries; what is printed is measured on others, in the
file as the service maps it. Each query is timed alone, three times, and its least time counts: the rest is other
processes.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from model_export.label_index import RECALL_AT, WANTED_RECALL, Bench, WantedIndex, choose_index
from service.bundle import layout
from service.bundle.searching import IndexSection
from service.search.codes import Codes
from service.search.index import Index
from training.artifact import Artifact, read_artifact
from training.data.batches import Bags
from training.data.records import Source, open_named
from training.methods.unidec import Unidec
from training.tokens import as_encoded, read_words

SENTENCE = re.compile(r"(?<=[.!?;])\s+| -- ")
SENTENCE_CHARACTERS = range(20, 201)
CHOOSING, AT_ONCE, ROUNDS = 64, 4096, 3
NOT_MAPPED = re.compile(r"^RssAnon:\s+(\d+) kB$", re.MULTILINE)

Floats = NDArray[np.float32]


def main() -> None:
    """Print what was chosen, and how it does on queries that it was not chosen by."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--data", required=True, nargs="+", metavar="DIR", help="data folders, or: sample")
    parser.add_argument("--labels", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--recall", type=float, default=WANTED_RECALL)
    parser.add_argument("--index", default="auto", choices=("auto", "hnsw", "ivf"))
    arguments = parser.parse_args()
    artifact = read_artifact(arguments.artifact)
    sources = [open_named(name) for name in arguments.data]
    asked = held_out(sources, CHOOSING + arguments.queries)
    labels_LD, queries_QD = vectors(artifact, sources, asked, arguments.labels)
    started = time.perf_counter()
    chosen = choose_index(labels_LD, queries_QD[:CHOOSING], WantedIndex(arguments.index, arguments.recall))
    print(f"chosen in {time.perf_counter() - started:.0f} s of: type, effort, candidates, recall, p50 ms, MB")
    for point in chosen.section.curve:
        parameters = (point.type, point.effort, point.candidates)
        print(*parameters, f"{point.recall:.4f} {point.p50_ms:.2f} {point.size_bytes / 1e6:.0f}")
    print("chosen:", chosen.section.type, chosen.section.effort, chosen.section.candidates)
    if chosen.index is not None:
        with tempfile.TemporaryDirectory() as folder:
            chosen.index.write(Path(folder))
            report(Path(folder), chosen.section, Bench(labels_LD, queries_QD[CHOOSING:]))


def held_out(sources: Sequence[Source], count: int) -> list[str]:
    """First lines of test points, drawn from all folders alike."""
    rng = np.random.default_rng(0)
    texts = [list(dict.fromkeys(first_line(point.text) for point in source.points("tst"))) for source in sources]
    drawn = [rng.permutation(each)[: count // len(sources) + 1].tolist() for each in texts]
    return [str(text) for text in rng.permutation(np.concatenate(drawn))[:count]]


def vectors(artifact: Artifact, sources: Sequence[Source], asked: Sequence[str], count: int) -> tuple[Floats, Floats]:
    """Label vectors in random order, all distinct, and those of the queries."""
    model = artifact.restore()
    assert isinstance(model, Unidec)
    with torch.no_grad():
        own_LD = model.label_vectors().numpy()
    queries_QD = encoded(artifact, model, asked)
    texts, known = list[str](), set(asked)
    for source_texts in (titles, sentences):
        for text in (text for source in sources for text in source_texts(source)):
            if text and text not in known:
                known.add(text)
                texts.append(text)
    spare = count // 20  # other texts may have the same tokens
    texts = texts[: count + spare - len(own_LD)]
    made_ND = np.unique(np.concatenate([own_LD, encoded(artifact, model, texts)]), axis=0)
    labels_LD = np.random.default_rng(0).permutation(made_ND)[:count]
    print(f"labels {labels_LD.shape}, {len(own_LD):,} of them the model's, the others of {len(texts):,} texts")
    return labels_LD, queries_QD


def titles(source: Source) -> Iterator[str]:
    """Label texts and first lines of training points."""
    yield from source.label_texts or ()
    yield from (first_line(point.text) for point in source.points("trn"))


def sentences(source: Source) -> Iterator[str]:
    """Those of the training points' contents, which follow the first line."""
    for point in source.points("trn"):
        for line in (point.text or "").split("\n")[1:]:
            yield from (part for part in SENTENCE.split(line) if len(part) in SENTENCE_CHARACTERS)


def first_line(text: str | None) -> str:
    return (text or "").split("\n")[0].strip()


@torch.no_grad()
def encoded(artifact: Artifact, model: Unidec, texts: Sequence[str]) -> Floats:
    """Texts as the model sees queries."""
    assert artifact.tokenizer is not None
    options = artifact.config.run.texts
    blocks = []
    for low in range(0, len(texts), AT_ONCE):
        words = read_words(artifact.tokenizer, texts[low : low + AT_ONCE], options, options.max_tokens)
        bags = Bags.from_csr(as_encoded(words, options))
        blocks.append(model.query_vectors(model.encoder(bags)).numpy())
    return np.concatenate(blocks)


def report(folder: Path, section: IndexSection, bench: Bench) -> None:
    """Recall, latency and bytes of an index as the service opens it."""
    held = memory_bytes()
    arrays = {file.name: np.load(file, mmap_mode="r") for file in folder.glob("*.npy")}
    codes, dimension = Codes.from_arrays(arrays), bench.vectors_LD.shape[1]
    index = Index.open(folder / layout.LABEL_INDEX, section, codes, dimension=dimension, threads=1)
    held = memory_bytes() - held
    recall_Q = bench.recall_Q(index.search(bench.queries_QD, RECALL_AT).ids_QK)
    error = recall_Q.std() / len(recall_Q) ** 0.5
    print(f"recall@{RECALL_AT}   {recall_Q.mean():.4f}, standard error {error:.4f}, of {len(recall_Q):,} queries")
    for k in (5, RECALL_AT):
        times_Q = milliseconds(partial(index.search, k=k), bench.queries_QD)
        p50, p99 = np.percentile(times_Q, (50, 99))
        print(f"k={k:<3}        p50 {p50:.2f} ms, p99 {p99:.2f} ms, one thread")
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(f"bytes        {size / 1e6:.0f} MB in the files, {size / bench.vectors_LD.nbytes:.3f} of float32 vectors")
    print(f"             {held / 1e6:.0f} MB of it in memory of its own, the rest is mapped")


def milliseconds(search: Callable[[Floats], object], queries_QD: Floats) -> NDArray[np.float64]:
    """Least time of each query alone."""
    times_RQ = np.empty((ROUNDS, len(queries_QD)))
    for times_Q in times_RQ:
        for row in range(len(queries_QD)):
            started = time.perf_counter()
            search(queries_QD[row : row + 1])
            times_Q[row] = 1000 * (time.perf_counter() - started)
    least_Q: NDArray[np.float64] = times_RQ.min(axis=0)
    return least_Q


def memory_bytes() -> int:
    """What the process holds that is no file's."""
    found = NOT_MAPPED.search(Path("/proc/self/status").read_text())
    return 1024 * int(found[1]) if found else 0


if __name__ == "__main__":
    main()
