"""Tiny but real bundles of every method, written through the same doors as export's: for tests only.

The graph is hand-made with ``onnx.helper``: normalised weighted bag of embeddings, one linear head. ``TinyModel`` holds
its weights and computes the same function in float64, so that tests have a reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from scipy.sparse import csr_array, random_array
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from model_export.codes import encode
from model_export.exact_search import write_exact_search
from model_export.faiss_index import build_index
from model_export.label_index import LabelIndex
from model_export.leading import leading_of, write_leading
from service.bags import Bag
from service.bundle import content_version, file_entry, inverted, layout, load_bundle, write_labels
from service.bundle.manifest import (
    Activation,
    Aggregation,
    CalibrationSection,
    ChangesSection,
    DeclareSection,
    FeatureQuery,
    FeaturesInput,
    GoldenAnswer,
    HashSection,
    IsotonicMap,
    MachSection,
    Manifest,
    Parity,
    PlattMap,
    Precision,
    PropensitySection,
    RankMap,
    Recovery,
    RerankSection,
    ScoredLabel,
    TextInput,
)
from service.bundle.row_texts import write_row_texts
from service.bundle.searching import ApproximateType, IndexSection, IndexType, LabelReading, OvaSection, UnidecSection
from service.engine import Engine
from service.filters.allowed import bits_of
from service.models.queries import Features, Query
from service.search.votes import Votes

Method = Literal["mach", "declare", "unidec", "ova"]
InputKind = Literal["text", "features"]

METHODS: tuple[Method, ...] = ("mach", "declare", "unidec", "ova")
INPUT_KINDS: tuple[InputKind, ...] = ("text", "features")

WORDS = (
    *("the", "a", "for", "of", "and", "fast", "small", "web", "mail", "server", "client", "library", "python", "image"),
    *("editor", "game", "network", "tool", "font", "data"),
)
MAX_TOKENS = 16
# What classifiers read beside tokens where a bundle has terms.
PIECES = {"font": ("a", "for"), "data": ("the", "of")}
PAIRS = (("web", "server"), ("mail", "server"), ("image", "data"))
DIMENSION = 30
GOLDEN_TEXTS = ("a fast web server", "python library for image data", "unheard-of words")
GOLDEN_FEATURES = (Features((0, 7), (1.0, 0.5)), Features((29,), (-2.0,)), Features((), ()))
GOLDEN_K = 5
# Of the labels, in each of a bundle's groups.
GROUP_SHARE = 0.4

# Both kinds of maps; scores of the tiny models lie between -20 and 20, votes and cosines around 0.
CALIBRATION = CalibrationSection(
    ranks=(
        RankMap(first_rank=1, map=PlattMap(slope=0.5, intercept=-0.5)),
        RankMap(first_rank=2, map=IsotonicMap(scores=(-4.0, 0.0, 1.0, 9.0), probabilities=(0.05, 0.2, 0.4, 0.9))),
        RankMap(first_rank=5, map=PlattMap(slope=0.25, intercept=-2.0)),
    )
)


@dataclass(frozen=True)
class Spec:
    """What a tiny bundle is; the defaults suit most tests."""

    method: Method = "mach"
    input: InputKind = "text"
    name: str = "tiny"
    label_count: int = 40
    has_label_texts: bool = True
    precision: Precision = "fp32"
    seed: int = 0
    repetitions: int = 4
    buckets: int = 16
    aggregation: Aggregation = "sum_logits"
    activation: Activation = "sigmoid"
    rank: int = 6
    row_count: int = 50
    neighbours: int = 7
    recovery: Recovery = "factors"
    alike: bool = False
    merged: bool = False
    divided: bool = False
    temperature: float | None = None
    row_texts: bool = False
    half_dimension: int = 4
    index: IndexType = "flat"
    directions: int | None = None
    leading: int | None = None
    calibrated: bool = False
    propensity_weight: float = 0.0
    candidates: int = 12
    reranked: bool = False
    terms: bool = False
    present: bool = False
    heading_weight: float = 0.0
    groups: tuple[str, ...] = ()
    reads_labels: bool = True
    zero_shot: int = 0
    disabled: tuple[int, ...] = ()


@dataclass(frozen=True)
class TinyModel:
    """The weights of a tiny bundle.

    Attributes:
        embeddings: (vocabulary or features, 8).
        head: (8, width of the output).
        tables: what the method adds, by file name; label vectors and DECLARE's rows under "vectors".
    """

    spec: Spec
    embeddings: NDArray[np.float32]
    head: NDArray[np.float32]
    tables: dict[str, NDArray[Any]] = field(default_factory=dict)

    def encode(self, bags: Sequence[Bag]) -> NDArray[np.float64]:
        """The graph's output for each bag, computed in float64 (MACH: (Q, R, B))."""
        outputs = np.stack([self._encode_one(bag) for bag in bags])
        if self.spec.method == "mach":
            return outputs.reshape(len(bags), self.spec.repetitions, self.spec.buckets)
        return outputs

    def _encode_one(self, bag: Bag) -> NDArray[np.float64]:
        values = bag.values.astype(np.float64)
        weights = values / max(np.sqrt((values**2).sum()), 1e-6)
        output = (weights @ self.embeddings[bag.ids].astype(np.float64)) @ self.head
        if self.spec.method == "unidec":
            halves = output.reshape(2, -1)
            output = (halves / np.maximum(np.linalg.norm(halves, axis=1, keepdims=True), 1e-6) * np.sqrt(0.5)).ravel()
        return output


def write_bundle(path: Path, spec: Spec | None = None) -> TinyModel:
    """Write a complete bundle, golden answers included, into the new folder ``path``."""
    spec = spec or Spec()
    path.mkdir(parents=True)
    model = _model(spec)
    if spec.input == "text":
        _tokenizer().save(str(path / layout.TOKENIZER))
    onnx.save(_graph(model), str(path / layout.ENCODER))
    _write_labels(path, spec)
    _write_tables(path, model)
    if spec.propensity_weight:
        inverse_L = np.random.default_rng(spec.seed).uniform(1, 20, spec.label_count)
        np.save(path / layout.INVERSE_PROPENSITIES, inverse_L.astype(np.float32))
    if spec.reranked:
        _write_classifiers(path, spec)
    draft = _draft(path, spec)
    write_manifest(path, draft.model_copy(update={"parity": _PARITY, "golden": _golden(path, draft)}))
    return model


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write ``manifest.json`` of the bundle folder ``path``."""
    (path / layout.MANIFEST).write_text(manifest.model_dump_json(indent=1))


def resign(path: Path) -> None:
    """Make the manifest agree again with files that a test has changed: sizes, checksums, dtypes, shapes, version."""
    manifest = Manifest.model_validate_json((path / layout.MANIFEST).read_bytes())
    files = {name: file_entry(path / name) for name in manifest.files}
    scores = manifest.calibration, manifest.propensity, manifest.rerank
    version = content_version(manifest.input, manifest.method, files, *scores, manifest.groups, manifest.changes)
    write_manifest(path, manifest.model_copy(update={"files": files, "version": version}))


_PARITY = Parity(queries=3, k=GOLDEN_K, max_score_difference=0.0, equal_top_k=1.0)


def _model(spec: Spec) -> TinyModel:
    rng = np.random.default_rng(spec.seed)
    vocabulary = len(WORDS) + 1 if spec.input == "text" else DIMENSION
    half = spec.half_dimension
    widths = {"mach": spec.repetitions * spec.buckets, "declare": spec.rank, "unidec": 2 * half, "ova": 2 * half}
    width = widths[spec.method]
    embeddings = rng.standard_normal((vocabulary, 8)).astype(np.float32)
    head = rng.standard_normal((8, width)).astype(np.float32)
    return TinyModel(spec, embeddings, head, _TABLES[spec.method](spec, rng))


def _mach_tables(spec: Spec, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
    buckets_LR = rng.integers(0, spec.buckets, (spec.label_count, spec.repetitions))
    buckets_LR = buckets_LR.astype(layout.bucket_dtype(spec.buckets))
    steps_N, partners_N, offsets_RB = inverted_lists(buckets_LR, spec.buckets)
    return {
        layout.MACH_BUCKETS: buckets_LR,
        layout.MACH_INVERTED_STEPS: steps_N,
        layout.MACH_INVERTED_PARTNERS: partners_N,
        layout.MACH_INVERTED_OFFSETS: offsets_RB,
    }


def inverted_lists(buckets_LR: NDArray[Any], buckets: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.int64]]:
    """Steps and partners of all repetitions, (N,), and where each bucket's begin, (R, B + 1)."""
    parts = [inverted.inverted_lists(*columns, buckets) for columns in inverted.columns_with_partners(buckets_LR)]
    starts_R = np.cumsum([0] + [len(steps) for steps, _, _ in parts])[:-1]
    offsets_RB = np.stack([start + offsets_B for start, (_, _, offsets_B) in zip(starts_R, parts, strict=True)])
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts]), offsets_RB


def _declare_tables(spec: Spec, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
    votes_NL = csr_array(random_array((spec.row_count, spec.label_count), density=0.08, rng=rng, dtype=np.float32))
    votes_NL.sort_indices()
    factors_LC, _ = np.linalg.qr(rng.standard_normal((spec.label_count, spec.rank)))
    factors_LC = factors_LC.astype(np.float32)
    if spec.alike:
        votes_NL.data[:] = 0.5
    votes = Votes.from_csr(votes_NL)
    tables = {
        layout.DECLARE_VOTES_INDPTR: votes.starts_G.astype(np.int64),
        layout.DECLARE_VOTES_INDICES: votes.labels_P,
        layout.DECLARE_VOTES_DATA: votes.values,
    }
    if spec.merged:
        tables[layout.DECLARE_VOTES_COUNTS] = rng.integers(1, 4, spec.row_count).astype(np.int32)
    if spec.divided:
        tables[layout.DECLARE_LENGTHS] = rng.uniform(0.5, 2, spec.row_count).astype(np.float32)
    if spec.recovery == "factors":
        return tables | {layout.DECLARE_FACTORS: factors_LC}
    return tables | {"vectors": votes_NL @ factors_LC}


def _unidec_tables(spec: Spec, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
    halves = rng.standard_normal((spec.label_count, 2, spec.half_dimension))
    halves *= np.sqrt(0.5) / np.linalg.norm(halves, axis=2, keepdims=True)
    vectors = halves.reshape(spec.label_count, -1)
    if spec.directions is not None:
        vectors = vectors[:, : spec.directions] @ rng.standard_normal((spec.directions, vectors.shape[1]))
    return {"vectors": vectors.astype(np.float32)}


def _ova_tables(spec: Spec, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
    return {"vectors": rng.standard_normal((spec.label_count, 2 * spec.half_dimension)).astype(np.float32)}


_TABLES = {"mach": _mach_tables, "declare": _declare_tables, "unidec": _unidec_tables, "ova": _ova_tables}


def _write_tables(path: Path, model: TinyModel) -> None:
    for name, table in model.tables.items():
        if name.endswith(".npy"):
            np.save(path / name, table)
    if model.spec.method in ("unidec", "ova"):
        if model.spec.leading is not None:
            write_leading(path, model.tables["vectors"], leading_of(model.tables["vectors"], model.spec.leading))
        elif model.spec.index == "flat":
            write_exact_search(model.tables["vectors"], path / layout.LABEL_VECTORS, path / layout.LABEL_SEARCH)
        else:
            _label_index(model.tables["vectors"], model.spec.index).write(path)
    if model.spec.row_texts:
        write_row_texts(path, [row_text(row) for row in range(model.spec.row_count)])
    if model.spec.method == "declare" and model.spec.recovery == "rows":
        write_exact_search(model.tables["vectors"], path / layout.DECLARE_ROWS, path / layout.DECLARE_ROW_SEARCH)


def row_text(row: int) -> str | None:
    """The text of a distinct training row; a third have none."""
    return f"Rangée {row}" if row % 3 else None


def _label_index(vectors_LD: NDArray[np.float32], kind: ApproximateType) -> LabelIndex:
    """An approximate index."""
    return LabelIndex(build_index(vectors_LD, kind), encode(vectors_LD, vectors_LD))


def _write_classifiers(path: Path, spec: Spec) -> None:
    rng = np.random.default_rng(spec.seed)
    words = len(WORDS) + 1 if spec.input == "text" else DIMENSION
    if spec.terms:
        _write_terms(path)
        words += len(PAIRS)
    weights = rng.normal(size=(words, spec.label_count)) * (rng.random((words, spec.label_count)) < 0.2)
    present = weights.nonzero()
    np.save(path / layout.RERANK_OFFSETS, np.cumsum([0, *np.count_nonzero(weights, axis=1)], dtype=np.int64))
    np.save(path / layout.RERANK_LABELS, present[1].astype(np.uint16))
    np.save(path / layout.RERANK_VALUES, weights[present].astype(np.float32))
    np.save(path / layout.RERANK_SCALES, np.ones(words, dtype=np.float32))
    if spec.input == "text" or spec.present:
        np.save(path / layout.RERANK_IDF, rng.uniform(1, 5, words).astype(np.float32))


def _write_terms(path: Path) -> None:
    ids = _tokenizer().get_vocab()
    pieces = [[ids[piece] for piece in PIECES.get(word, ())] for word in sorted(ids, key=lambda word: ids[word])]
    pairs = sorted(ids[left] * len(ids) + ids[right] for left, right in PAIRS)
    np.save(path / layout.RERANK_PIECE_OFFSETS, np.cumsum([0, *map(len, pieces)], dtype=np.int64))
    np.save(path / layout.RERANK_PIECES, np.array(list(chain.from_iterable(pieces)), dtype=np.int32))
    np.save(path / layout.RERANK_PAIRS, np.array(pairs, dtype=np.int64))


def _write_labels(path: Path, spec: Spec) -> None:
    ids = [f"label-{row:02d}" for row in range(spec.label_count)]
    texts = [f"Étiquette {row}" for row in range(spec.label_count)] if spec.has_label_texts else None
    write_labels(path, ids, texts)
    if spec.groups:
        members_GL = np.random.default_rng(spec.seed).random((len(spec.groups), spec.label_count)) < GROUP_SHARE
        members_GL[:, 0] = True  # none is empty
        np.save(path / layout.LABEL_GROUPS, np.packbits(members_GL, axis=1, bitorder="little"))
    if spec.disabled:
        np.save(path / layout.LABELS_DISABLED, bits_of(np.array(spec.disabled), spec.label_count))


def _tokenizer() -> Tokenizer:
    vocabulary = {word: row for row, word in enumerate(["[UNK]", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


def _draft(path: Path, spec: Spec) -> Manifest:
    method = _section(path, spec)
    queries: TextInput | FeaturesInput = FeaturesInput(dimension=DIMENSION)
    if spec.input == "text":
        queries = TextInput(max_tokens=MAX_TOKENS, heading_weight=spec.heading_weight)
    calibration = CALIBRATION if spec.calibrated or spec.propensity_weight else None
    propensity = None
    if spec.propensity_weight:
        propensity = PropensitySection(weight=spec.propensity_weight, candidates=spec.candidates)
    rerank = None
    if spec.reranked:
        curve = PlattMap(slope=1.0, intercept=0.0)
        rerank = RerankSection(
            candidates=spec.candidates,
            nominees=5,
            share=0.5,
            own=curve,
            words=curve,
            terms=spec.terms,
            present=spec.present,
        )
    groups = {}
    if spec.groups:
        sizes = np.bitwise_count(np.load(path / layout.LABEL_GROUPS)).sum(axis=1)
        groups = dict(zip(sorted(spec.groups), sizes.tolist(), strict=True))
    changes = None
    if spec.zero_shot or spec.disabled:
        changes = ChangesSection(zero_shot=spec.zero_shot, disabled=len(spec.disabled))
    files = {file.name: file_entry(file) for file in path.iterdir()}
    return Manifest(
        name=spec.name,
        version=content_version(queries, method, files, calibration, propensity, rerank, groups, changes),
        created_with={"onnx": onnx.__version__},
        input=queries,
        label_count=spec.label_count,
        has_label_texts=spec.has_label_texts,
        hashed_ids=True,
        groups=groups,
        precision=spec.precision,
        method=method,
        rerank=rerank,
        calibration=calibration,
        propensity=propensity,
        changes=changes,
        files=files,
    )


def _section(path: Path, spec: Spec) -> MachSection | DeclareSection | UnidecSection | OvaSection:
    if spec.method == "mach":
        return MachSection(
            repetitions=spec.repetitions,
            buckets=spec.buckets,
            aggregation=spec.aggregation,
            activation=spec.activation,
            hash=HashSection(seed=spec.seed),
        )
    if spec.method == "declare":
        return DeclareSection(
            rank=spec.rank,
            neighbours=spec.neighbours,
            recovery=spec.recovery,
            merged=spec.merged or None,
            alike=spec.alike or None,
            divided=spec.divided or None,
            temperature=spec.temperature,
            texts=spec.row_texts or None,
        )
    index = IndexSection(
        type=spec.index,
        recall=1.0,
        leading=spec.leading,
        directions=None if spec.index == "flat" else np.load(path / layout.LABEL_CODES).shape[1],
        candidates=None if spec.index == "flat" else spec.candidates,
        span=0.1 if spec.index == "ivf" else None,
    )
    if spec.method == "unidec":
        reads = spec.reads_labels and spec.input == "text"
        reading = LabelReading(max_tokens=MAX_TOKENS, output="query") if reads else None
        return UnidecSection(dimension=2 * spec.half_dimension, heads="both", reading=reading, index=index)
    return OvaSection(dimension=2 * spec.half_dimension, index=index)


def _golden(path: Path, draft: Manifest) -> tuple[GoldenAnswer, ...]:
    engine = Engine.open(load_bundle(path, draft), device="cpu")
    queries: tuple[Query, ...] = GOLDEN_TEXTS if draft.input.kind == "text" else GOLDEN_FEATURES
    return tuple(
        GoldenAnswer(
            query=query
            if isinstance(query, str)
            else FeatureQuery(indices=tuple(query.indices), values=tuple(query.values)),
            labels=tuple(ScoredLabel(id=one.label, score=one.score) for one in engine.answer_alone(query, GOLDEN_K)),
        )
        for query in queries
    )


def _graph(model: TinyModel) -> onnx.ModelProto:
    constants = {
        "embeddings": model.embeddings,
        "head": model.head,
        "tiny": np.array(1e-6, dtype=np.float32),
        "width": np.array([1], dtype=np.int64),
        "last": np.array([2], dtype=np.int64),
    }
    nodes = [
        helper.make_node("Gather", ["embeddings", "ids"], ["embedded"]),
        helper.make_node("ReduceL2", ["values", "width"], ["norms"], keepdims=1),
        helper.make_node("Max", ["norms", "tiny"], ["safe_norms"]),
        helper.make_node("Div", ["values", "safe_norms"], ["weights"]),
        helper.make_node("Unsqueeze", ["weights", "width"], ["rows"]),
        helper.make_node("MatMul", ["rows", "embedded"], ["pooled_rows"]),
        helper.make_node("Squeeze", ["pooled_rows", "width"], ["pooled"]),
        helper.make_node("MatMul", ["pooled", "head"], ["scores"]),
    ]
    spec = model.spec
    if spec.method == "mach":
        output, shape = "bucket_logits", [spec.repetitions, spec.buckets]
        constants["shape"] = np.array([-1, *shape], dtype=np.int64)
        nodes.append(helper.make_node("Reshape", ["scores", "shape"], [output]))
    elif spec.method == "declare":
        output, shape = "embedding", [spec.rank]
        nodes.append(helper.make_node("Identity", ["scores"], [output]))
    elif spec.method == "ova":
        output, shape = "query", [2 * spec.half_dimension]
        nodes.append(helper.make_node("Identity", ["scores"], [output]))
    else:
        output, shape = "query", [2 * spec.half_dimension]
        constants["split"] = np.array([-1, 2, spec.half_dimension], dtype=np.int64)
        constants["joined"] = np.array([-1, *shape], dtype=np.int64)
        constants["half"] = np.array(np.sqrt(0.5), dtype=np.float32)
        nodes += [
            helper.make_node("Reshape", ["scores", "split"], ["halves"]),
            helper.make_node("ReduceL2", ["halves", "last"], ["half_norms"], keepdims=1),
            helper.make_node("Max", ["half_norms", "tiny"], ["safe_half_norms"]),
            helper.make_node("Div", ["halves", "safe_half_norms"], ["normal_halves"]),
            helper.make_node("Mul", ["normal_halves", "half"], ["scaled"]),
            helper.make_node("Reshape", ["scaled", "joined"], [output]),
        ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        inputs=[
            helper.make_tensor_value_info("ids", TensorProto.INT64, ["Q", "T"]),
            helper.make_tensor_value_info("values", TensorProto.FLOAT, ["Q", "T"]),
        ],
        outputs=[helper.make_tensor_value_info(output, TensorProto.FLOAT, ["Q", *shape])],
        initializer=[numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model_proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model_proto)
    return model_proto
