"""The engine: a whole batch of queries in, their best labels out.

Synchronous and free of HTTP and asyncio, so that export verifies bundles through the same code that serves them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.bags import Bag, FeatureReader, QueryReader, TextReader
from service.bundle import Bundle, LabelTable, Manifest, layout
from service.bundle.manifest import TextInput
from service.decoders import decoder_class
from service.decoders.base import Decoder
from service.encoder import Encoded, Encoder, QueryEncoder
from service.errors import BundleError, EngineFailed
from service.explaining import Explainer
from service.filters import search as filtering
from service.filters.allowed import Allowed
from service.filters.resolver import Resolver
from service.filters.search import Wanted
from service.golden import Found, difference, query_of
from service.live.label_encoder import LabelEncoder, why_none
from service.live.views import LiveLabels, View
from service.models.queries import Query
from service.reranking import Reranker
from service.scoring import Ranked, RawScoring, Scoring, scoring_of
from service.search.topk import TopK
from service.sessions import resolve_device
from service.sharding.deferred import DeferredEncoder

if TYPE_CHECKING:
    from service.sharding.shards import Shards

logger = logging.getLogger(__name__)

# CUDA loads a kernel at its first use, and takes other ones for other sizes.
WARM_UP_ROWS = {"cpu": (1, 8), "cuda": (1, 2, 4, 8, 16, 32, 64, 128)}
WARM_UP_K = 10
# Labels that are found beyond those wanted, where some are disabled.
SPARE = 8
NO_FILTERS: Mapping[int, Wanted] = MappingProxyType({})


class Filtered(NamedTuple):
    """The answer to a query of which some labels alone are wanted.

    Attributes:
        ids_K: best first, K = min(k, labels that are allowed).
        scores_K: theirs.
        keys_K: what their order is by.
        mode: how they were found.
    """

    ids_K: NDArray[np.int64]
    scores_K: NDArray[np.float32]
    keys_K: NDArray[np.floating]
    mode: filtering.Mode


class _Wishes(NamedTuple):
    """What the queries of a batch want beside their best labels.

    Attributes:
        filters: some labels alone, by their places.
        explained: places of those that ask why.
        allowed: labels that are not disabled; None where that is all.
        ks_Q: labels that each wants.
    """

    filters: Mapping[int, Wanted]
    explained: Sequence[int]
    allowed: Allowed | None
    ks_Q: NDArray[np.int64]


NO_ANSWERS: Mapping[int, Filtered] = MappingProxyType({})
NO_REASONS: Mapping[int, Explainer] = MappingProxyType({})


@dataclass(frozen=True)
class Answer:
    """A batch's answer and what it cost.

    Attributes:
        top: the best labels of each query, K = min(k, L).
        keys_QK: what their order is by, see `service.scoring.Ranked`.
        encode_seconds: padding and the ONNX graph.
        search_seconds: the decoder, and what is made of its scores.
        padding_ratio: share of the padded input that is padding.
        filtered: answers to the queries with a filter, and to those that disabled labels would answer, by their places
            in the batch.
        explainers: of the queries that ask why, by their places.
    """

    top: TopK
    keys_QK: NDArray[np.floating]
    encode_seconds: float
    search_seconds: float
    padding_ratio: float
    filtered: Mapping[int, Filtered] = field(default_factory=dict)
    explainers: Mapping[int, Explainer] = field(default_factory=dict)


class Engine:
    """An opened bundle that answers queries. ``prepare`` and ``run`` may be called from several threads.

    Attributes:
        manifest: of the bundle.
        device: "cpu" or "cuda", as resolved.
        providers: ONNX Runtime's execution providers, first choice first.
        live: its labels, which may change at any time.
    """

    def __init__(self, bundle: Bundle, reader: QueryReader, encoder: QueryEncoder, decoder: Decoder) -> None:
        self.manifest: Manifest = bundle.manifest
        self.device: str = encoder.device
        self.providers: list[str] = encoder.providers
        self._reader = reader
        self._encoder = encoder
        self._reranker = Reranker.from_bundle(bundle)
        self._scoring: Scoring = scoring_of(bundle)
        label_encoder = LabelEncoder.of(bundle, encoder)
        encode = why_none(bundle.manifest) if label_encoder is None else label_encoder.encode
        self.live = LiveLabels(bundle, decoder, encode)

    @classmethod
    def open(cls, bundle: Bundle, *, device: str = "auto", threads: int = 1, shards: Shards | None = None) -> Engine:
        """Set up tokenizer, graph and tables or index.

        Args:
            bundle: a verified bundle.
            device: where encoder and search run: "auto", "cpu" or "cuda".
            threads: that one run may use on the CPU.
            shards: of a bundle that names some; None: they are opened here.

        Raises:
            BundleError: a file cannot be used, or CUDA was asked for in vain.
        """
        device = resolve_device(device, bundle.manifest.precision)
        is_whole = not bundle.manifest.shards
        resident = _resident_decoder(bundle) if device == "cuda" and is_whole else None
        decoder = resident or (_decoder(bundle, threads) if is_whole else _sharded_decoder(bundle, threads, shards))
        if shards is not None and shards.traits.encode:
            return cls(bundle, _reader(bundle), DeferredEncoder(), decoder)
        encoder = Encoder.open(
            bundle.file(layout.ENCODER),
            decoder.required_outputs,
            device=device,
            threads=threads,
            resident=resident is not None,
        )
        return cls(bundle, _reader(bundle), encoder, decoder)

    @property
    def labels(self) -> LabelTable:
        """Ids and texts by label row, of all labels that were ever found."""
        return self.live.view.labels

    @property
    def filters(self) -> Resolver:
        """Finds the labels that requests allow."""
        return self.live.view.filters

    def prepare(self, queries: Sequence[Query]) -> list[Bag]:
        """Turn queries into bags, one each, in order; texts are tokenised in one pass.

        Raises:
            InvalidRequest: a query is of the wrong kind, or its features are out of range, repeated or not finite.
        """
        return self._reader.read(queries)

    def run(
        self,
        bags: Sequence[Bag],
        k: int,
        filters: Mapping[int, Wanted] = NO_FILTERS,
        explained: Sequence[int] = (),
        ks: Sequence[int] | None = None,
        *,
        raw: bool = False,
    ) -> Answer:
        """Answer a batch.

        Args:
            bags: at least one.
            k: labels wanted, at least 1.
            filters: of queries that want some labels alone, by their places in the batch.
            explained: places of the queries that ask why.
            ks: labels that each query wants, k at most; None: k. What else it is given may hold disabled labels.
            raw: give raw scores in their order, whatever the bundle serves, and disabled labels too: training's scorer
                gives the same.

        Raises:
            EngineFailed: the model gave numbers that are not finite.
        """
        started = perf_counter()
        encoded = self._encoder.run(bags)
        between = perf_counter()
        view, scoring = self.live.view, RawScoring() if raw else self._scoring
        allowed = None if raw else view.allowed
        filtered, explainers = NO_ANSWERS, NO_REASONS
        if filters or explained or allowed is not None:
            ks_Q = np.full(len(bags), k) if ks is None else np.array(ks)
            wishes = _Wishes(filters, explained, allowed, ks_Q)
            ranked, filtered, explainers = self._search_for(wishes, bags, encoded, k, view, scoring)
        else:  # nearly all batches; what nobody asks for costs nobody anything
            found = self._decode(view.decoder, encoded.outputs, self._width(k, scoring), len(bags))
            ranked = scoring.serve(self._reranked(bags, found).first(scoring.wanted(k)), k)
        ended = perf_counter()
        return Answer(
            ranked.top,
            ranked.keys_QK,
            between - started,
            ended - between,
            encoded.padding_ratio,
            filtered,
            explainers,
        )

    def _search_for(
        self, wishes: _Wishes, bags: Sequence[Bag], encoded: Encoded, k: int, view: View, scoring: Scoring
    ) -> tuple[Ranked, Mapping[int, Filtered], Mapping[int, Explainer]]:
        """A batch where some queries want some labels alone or ask why, or some labels are disabled.

        Returns:
            Answers of all labels, those of which some alone are wanted, and explainers, both by their places.
        """
        allowed = wishes.allowed
        # A few more, so that a query whose best labels are disabled seldom needs a search of its own.
        spare = 0 if allowed is None else min(SPARE, view.denied)
        wanted = {
            place: (Wanted(one.k, one.allowed.within(allowed, len(view.labels))), self._needed(one.k, scoring))
            for place, one in wishes.filters.items()
        }
        width = max(self._width(k, scoring), *(width for _, width in wanted.values()), 0)
        if allowed is not None:
            width = max(width, self._needed(k + spare, scoring))
        found = self._decode(view.decoder, encoded.outputs, width, len(bags))
        ranked = scoring.serve(self._reranked(bags, found).first(scoring.wanted(k)), k)
        if allowed is not None:
            for place in _with_others(ranked.top, wishes.ks_Q, allowed):
                own = Wanted(int(wishes.ks_Q[place]), allowed)
                wanted.setdefault(place, (own, self._needed(own.k + spare, scoring)))
        traces: dict[int, TopK] = {place: found.of(place) for place in wishes.explained}
        filtered: dict[int, Filtered] = {}
        for place, (own, width) in wanted.items():
            plain = found.of(place).first(width)
            filtered[place], trace = self._filtered(view, bags[place], plain, own, encoded, place, scoring)
            if place in traces:
                traces[place] = trace
        explainers = {
            place: self._explainer(view, bags[place], trace, encoded, place) for place, trace in traces.items()
        }
        return ranked, filtered, explainers

    def _explainer(self, view: View, bag: Bag, found: TopK, encoded: Encoded, place: int) -> Explainer:
        _, outputs = self._encoder.outputs_of(encoded, place)
        calibrated = self.manifest.calibration is not None
        return Explainer(bag, outputs, found, view.decoder.scorer, self._reranker, calibrated)

    def _width(self, k: int, scoring: Scoring) -> int:
        """How many labels the decoder must find, so that k can be served."""
        wanted = scoring.wanted(k)
        return wanted if self._reranker is None else self._reranker.wanted(wanted)

    def _needed(self, k: int, scoring: Scoring) -> int:
        """How many the decoder must find, so that k of those that are allowed can be served, if enough are."""
        return self._width(max(k, scoring.head), scoring)

    @staticmethod
    def _decode(decoder: Decoder, outputs: Mapping[str, Any], width: int, queries: int) -> TopK:
        """The best min(width, L) labels, by raw scores."""
        found = decoder.decode(outputs, width)
        if not np.isfinite(found.scores_QK).all():
            raise EngineFailed(f"the decoder's scores are NaN or infinite for one of {queries} queries")
        return found

    def _reranked(self, bags: Sequence[Bag], found: TopK) -> TopK:
        return found if self._reranker is None else self._reranker.rerank(bags, found)

    def _filtered(
        self, view: View, bag: Bag, plain: TopK, wanted: Wanted, encoded: Encoded, place: int, scoring: Scoring
    ) -> tuple[Filtered, TopK]:
        """The best allowed labels of one query, from what its batch was decoded to; and what was found for it."""
        found = filtering.find(
            view.decoder, plain, wanted, len(view.labels), lambda: self._encoder.outputs_of(encoded, place)
        )
        whole = found.top if self._reranker is None else self._reranker.rerank_all([bag], found.top)
        ranked = scoring.serve(whole, whole.ids_QK.shape[1])
        (ids_N,), (scores_N,), (keys_N,) = ranked.top.ids_QK, ranked.top.scores_QK, ranked.keys_QK
        kept_K = np.flatnonzero(wanted.allowed.keeps(ids_N))[: wanted.k]
        return Filtered(ids_N[kept_K], scores_N[kept_K], keys_N[kept_K], found.mode), found.top

    def answer_alone(self, query: Query, k: int) -> list[Found]:
        """The best labels of one query, best first, without disabled ones.

        Raises:
            InvalidRequest: see `prepare`.
            EngineFailed: see `run`.
        """
        answer = self.run(self.prepare([query]), k)
        filtered = answer.filtered.get(0)
        if filtered is None:
            columns = answer.top.ids_QK[0], answer.top.scores_QK[0], answer.keys_QK[0]
        else:
            columns = filtered.ids_K, filtered.scores_K, filtered.keys_K
        rows, scores, keys = (column.tolist() for column in columns)
        return [Found(self.labels.id(row), score, key) for row, score, key in zip(rows, scores, keys, strict=True)]

    @property
    def golden_queries(self) -> list[Query]:
        """The queries whose answers the bundle holds."""
        return [query_of(golden) for golden in self.manifest.golden]

    def warm_up(self) -> None:
        """Run batches of several sizes, so that no client pays for allocations and compilers."""
        bags = self.prepare(self.golden_queries) or [Bag(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32))]
        for rows in WARM_UP_ROWS[self.device]:
            self.run((bags * rows)[:rows], WARM_UP_K)

    def check_golden(self) -> None:
        """Ask the golden queries again; see `service.golden.difference`.

        Raises:
            BundleError: an answer differs; the sentence names the query.
        """
        for position, golden in enumerate(self.manifest.golden):
            found = self.answer_alone(query_of(golden), len(golden.labels))
            fault = difference(golden.labels, found, self.manifest.precision)
            if fault:
                raise BundleError(f"golden query {position} {golden.query!r}: {fault}")


def _with_others(top: TopK, ks_Q: NDArray[np.int64], allowed: Allowed) -> list[int]:
    """The queries that have labels which are not allowed among as many of their best as they want."""
    denied_QK = ~allowed.keeps(top.ids_QK)
    wanted_QK = np.arange(top.ids_QK.shape[1]) < ks_Q[:, None]
    places: list[int] = np.flatnonzero((denied_QK & wanted_QK).any(axis=1)).tolist()
    return places


def _decoder(bundle: Bundle, threads: int) -> Decoder:
    return decoder_class(bundle.manifest.method.name).from_bundle(bundle, threads=threads)


def _sharded_decoder(bundle: Bundle, threads: int, shards: Shards | None) -> Decoder:
    from service.sharding.decoder import decoder_of  # needs what all methods need
    from service.sharding.opening import open_local

    return decoder_of(bundle, shards or open_local(bundle, threads=threads))


def _resident_decoder(bundle: Bundle) -> Decoder | None:
    """A decoder beside the encoder on the GPU, or None, with a line in the log, where the CPU decodes."""
    from service.resident import resident_decoder  # needs onnx, which comes with the GPU's runtime alone

    decoder = resident_decoder(bundle, "cuda")
    if decoder is None:
        logger.info("%s: the encoder runs on the GPU, its labels are found by the CPU", bundle.manifest.name)
    return decoder


def _reader(bundle: Bundle) -> QueryReader:
    section = bundle.manifest.input
    if isinstance(section, TextInput):
        return TextReader.open(bundle.file(layout.TOKENIZER), section.max_tokens, section.order, section.heading_weight)
    return FeatureReader(section.dimension)
