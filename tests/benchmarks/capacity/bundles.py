"""Bundles of the sizes that a workload has, from a model of the sample and whatever numbers it lacks."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from scipy.sparse import csr_array, vstack
from torch import nn

from model_export.exact_search import write_exact_search
from model_export.exporters.declare import DeclareGraph
from model_export.exporters.mach import MachGraph, write_inverted_lists
from model_export.exporters.search import QueryGraph
from model_export.label_index import WantedIndex, choose_index
from model_export.leading import leading_of, write_leading
from model_export.onnx_encoder import trace
from service.bundle import content_version, file_entry, layout, load_bundle, write_labels
from service.bundle.manifest import DeclareSection, GoldenAnswer, Manifest, Parity, ScoredLabel, TextInput
from service.bundle.searching import IndexSection
from service.engine import Engine
from service.planning.sizes import PAIRS, PIECES_PER_TOKEN, RECORD_BYTES, manifest_of, rerank_weights
from service.planning.workload import Workload
from service.search.votes import Votes
from tests.benchmarks.capacity.sources import MINILM, MOST_TOKENS, Sources
from tests.benchmarks.declare_search import varied
from tests.benchmarks.mach_search import spread
from training.artifact import new_model
from training.compression import Projected, kept_lengths, row_lengths, unit_rows
from training.encoders import BagConfig, TransformerConfig, TransformerEncoder
from training.methods.base import Shape
from training.recipes import RECIPES

GOLDEN, GOLDEN_K = 4, 5


@dataclass(frozen=True)
class Case:
    """A bundle.

    Attributes:
        name: of its folder.
        workload: that it was made for; of DECLARE, rows and their labels as they turned out.
        path: the folder.
    """

    name: str
    workload: Workload
    path: Path


def write_case(name: str, workload: Workload, sources: Sources, folder: Path) -> Case:
    """Write a bundle, its golden answers included."""
    path = folder / name
    path.mkdir(parents=True)
    section: dict[str, Any] = {}
    if workload.method == "declare":
        workload, section = _write_votes(path, workload, sources)
    elif workload.method == "mach":
        _write_buckets(path, workload, sources)
    else:
        section = _write_vectors(path, workload, sources)
    onnx.save(_graph(workload, sources), str(path / layout.ENCODER))
    if workload.encoder == "bag":
        shutil.copyfile(sources.tokenizer_file, path / layout.TOKENIZER)
    else:
        sources.transformer_tokenizer.save(str(path / layout.TOKENIZER))
    write_labels(path, *_labels(workload))
    if workload.rerank_weights:
        _write_classifiers(path, workload, sources)
    _sign(path, name, workload, section, sources.queries[:GOLDEN])
    return Case(name, workload, path)


def _labels(workload: Workload) -> tuple[list[str], list[str]]:
    """Ids and texts of so many bytes on average."""
    ids = [str(row) for row in range(workload.labels)]
    left = round(workload.labels * (RECORD_BYTES + workload.label_bytes)) - RECORD_BYTES * len(ids) - len("".join(ids))
    base, more = divmod(left, len(ids))
    return ids, ["x" * (base + (row < more)) for row in range(len(ids))]


def _graph(workload: Workload, sources: Sources) -> onnx.ModelProto:
    """The trained model's where the search depends on what it gives, else one of untrained weights."""
    if workload.method == "mach" and workload.buckets == sources.mach.buckets and workload.widths == (64,):
        return trace(MachGraph(sources.mach.eval()), ["bucket_logits"])
    if workload.method == "declare" and workload.dimension == sources.declare.head.out_features:
        return trace(DeclareGraph(sources.declare.eval()), ["embedding"])
    return traced(workload, sources.transformer if workload.encoder == "transformer" else None)


def traced(workload: Workload, transformer: TransformerEncoder | None = None) -> onnx.ModelProto:
    """The graph of an untrained model, with the weights of a transformer where it is given."""
    model: Any = untrained(workload)
    if transformer is not None:
        model.encoder.load_state_dict(transformer.state_dict())
    match workload.method:
        case "mach":
            return trace(MachGraph(model), ["bucket_logits"])
        case "declare":
            model.scales_C = torch.ones(workload.dimension)
            return trace(DeclareGraph(model), ["embedding"])
        case _:
            return trace(QueryGraph(model), ["query"])


def untrained(workload: Workload) -> nn.Module:
    """A model of the workload's sizes."""
    run = RECIPES[workload.method]()
    sizes: dict[str, Any] = {}
    match workload.method:
        case "mach":
            sizes = {"repetitions": workload.repetitions, "buckets": workload.buckets}
        case "declare":
            sizes = {"rank": workload.dimension}
        case "unidec":
            sizes = {"dimensions": workload.dimension // 2}
    encoder: Any = BagConfig(widths=workload.widths or None)
    vocabulary = workload.vocabulary
    if workload.encoder == "transformer":
        encoder = TransformerConfig(model=MINILM, max_tokens=MOST_TOKENS).resolved()
        vocabulary = encoder.tokenizer([]).get_vocab_size()
    # Of the labels a graph knows no more than their number, and some have weights that are no part of it.
    shape = Shape(
        label_count=max(2, workload.dimension if workload.method == "declare" else 2),
        input_width=vocabulary,
        train_rows=workload.dimension,
        text=True,
        single_label=False,
    )
    method = run.method.model_copy(update=sizes).resolved(shape)
    run = run.model_copy(update={"method": method, "encoder": encoder})
    torch.manual_seed(0)
    return new_model(run, shape).eval()


def _write_buckets(path: Path, workload: Workload, sources: Sources) -> None:
    known_RL = sources.mach_artifact.tables["buckets"]
    if (workload.repetitions, workload.buckets) != (sources.mach.repetitions, sources.mach.buckets):
        known_RL = np.empty((workload.repetitions, 0), dtype=np.int32)
    buckets_LR = spread(known_RL[:, : workload.labels], workload.buckets, workload.labels)
    np.save(path / layout.MACH_BUCKETS, buckets_LR)
    write_inverted_lists(path, buckets_LR, workload.buckets)


def _write_vectors(path: Path, workload: Workload, sources: Sources) -> dict[str, Any]:
    vectors_LD = sources.label_vectors(workload.labels, workload.dimension)
    if workload.index == "flat" and workload.leading:
        write_leading(path, vectors_LD, leading_of(vectors_LD, workload.leading))
    elif workload.index == "flat":
        write_exact_search(vectors_LD, path / layout.LABEL_VECTORS, path / layout.LABEL_SEARCH)
    else:
        chosen = choose_index(vectors_LD, sources.queries_of(workload.dimension), WantedIndex(workload.index))
        assert chosen.index is not None
        chosen.index.write(path)
        return {"index": chosen.section.model_copy(update={"curve": ()})}
    return {"index": IndexSection(type="flat", recall=1.0, leading=workload.leading or None)}


def _write_votes(path: Path, workload: Workload, sources: Sources) -> tuple[Workload, dict[str, Any]]:
    """Rows of the first so many labels: trained ones and others that are like them, which may recur; about so many."""
    model = sources.declare
    factors_LC = np.ascontiguousarray(sources.declare_artifact.tables["factors"])[: workload.labels]
    trained_NL = model.votes_GL[:, : workload.labels]
    trained_NL = csr_array(trained_NL[np.diff(trained_NL.indptr) > 0][: workload.rows])
    trained_NL.data[:] = 1
    rows_NL = csr_array(vstack([trained_NL, varied(trained_NL, max(1, workload.rows - trained_NL.shape[0]))]))
    rows_NL = csr_array(rows_NL[np.diff(rows_NL.indptr) > 0])
    unit_GL = unit_rows(rows_NL)
    unit_GL.sort_indices()
    votes, counts_G = Votes.from_csr(unit_GL), np.ones(unit_GL.shape[0], dtype=np.int32)
    lengths_G = kept_lengths(Projected(unit_GL, factors_LC), row_lengths(unit_GL)).astype(np.float32)
    np.save(path / layout.DECLARE_VOTES_INDPTR, votes.starts_G.astype(layout.offset_dtype(unit_GL.nnz)))
    np.save(path / layout.DECLARE_VOTES_INDICES, votes.labels_P)
    np.save(path / layout.DECLARE_VOTES_DATA, votes.values)
    np.save(path / layout.DECLARE_VOTES_COUNTS, counts_G)
    made = replace(workload, rows=unit_GL.shape[0], row_labels=unit_GL.nnz / unit_GL.shape[0])
    if made.by_factors:
        np.save(path / layout.DECLARE_LENGTHS, lengths_G)
        np.save(path / layout.DECLARE_FACTORS, factors_LC)
    else:
        rows_GC = np.divide(unit_GL @ factors_LC, lengths_G[:, None], dtype=np.float32)
        write_exact_search(rows_GC, path / layout.DECLARE_ROWS, path / layout.DECLARE_ROW_SEARCH)
    return made, {"neighbours": model.config.neighbours, "temperature": model.config.vote_temperature or None}


def _write_classifiers(path: Path, workload: Workload, sources: Sources) -> None:
    """Random weights: of each word as many as it is frequent in queries."""
    rng, tokens, total = np.random.default_rng(0), workload.vocabulary, rerank_weights(workload)
    tokenizer = sources.mach_artifact.tokenizer
    assert tokenizer is not None
    ids = [id_ for one in tokenizer.encode_batch(sources.queries) for id_ in one.ids]
    shares_V = np.bincount(ids, minlength=tokens) + 0.5
    weights_V = np.append(rng.multinomial(total, shares_V / shares_V.sum()), np.zeros(PAIRS, dtype=int))
    words, labels = np.repeat(np.arange(len(weights_V)), weights_V), rng.integers(0, workload.labels, total)
    labels = labels[np.lexsort((labels, words))]
    pieces = rng.multinomial(round(PIECES_PER_TOKEN * tokens), np.full(tokens, 1 / tokens))
    pairs = np.sort(rng.choice(tokens**2, PAIRS, replace=False))
    arrays: dict[str, Any] = {
        layout.RERANK_OFFSETS: np.concatenate([[0], np.cumsum(weights_V)]).astype(layout.offset_dtype(total)),
        layout.RERANK_LABELS: labels.astype(layout.label_dtype(workload.labels)),
        layout.RERANK_VALUES: rng.standard_normal(total, dtype=np.float32),
        layout.RERANK_SCALES: np.ones(len(weights_V), dtype=np.float32),
        layout.RERANK_IDF: np.ones(len(weights_V), dtype=np.float32),
        layout.RERANK_PIECE_OFFSETS: np.concatenate([[0], np.cumsum(pieces)]).astype(np.int32),
        layout.RERANK_PIECES: rng.integers(0, tokens, pieces.sum(), dtype=np.int32),
        layout.RERANK_PAIRS: pairs.astype(np.int64),
    }
    for name, array in arrays.items():
        np.save(path / name, array)


def _sign(path: Path, name: str, workload: Workload, section: dict[str, Any], queries: Sequence[str]) -> None:
    planned = manifest_of(workload)
    method = planned.method.model_copy(update=section)
    if isinstance(method, DeclareSection):
        alike = np.load(path / layout.DECLARE_VOTES_DATA, mmap_mode="r").size == workload.rows
        method = method.model_copy(update={"alike": alike or None})
    reads = TextInput(max_tokens=256)
    if workload.encoder == "transformer":
        reads = TextInput(max_tokens=MOST_TOKENS, order="sequence")
    files = {file.name: file_entry(file) for file in path.iterdir()}
    draft = planned.model_copy(
        update={
            "name": name,
            "method": method,
            "input": reads,
            "files": files,
            "version": content_version(reads, method, files, None, None, planned.rerank),
        }
    )
    engine = Engine.open(load_bundle(path, draft), device="cpu")
    parity = Parity(queries=1, k=GOLDEN_K, max_score_difference=0.0, equal_top_k=1.0)
    golden = tuple(_golden(engine, query) for query in queries)
    finished = Manifest.model_validate(draft.model_copy(update={"parity": parity, "golden": golden}).model_dump())
    (path / layout.MANIFEST).write_text(finished.model_dump_json(indent=1), encoding="utf-8")


def _golden(engine: Engine, query: str) -> GoldenAnswer:
    found = engine.answer_alone(query, GOLDEN_K)
    return GoldenAnswer(query=query, labels=tuple(ScoredLabel(id=one.label, score=one.score) for one in found))
