"""What a decoder is: the part of a method that turns the encoder's outputs into labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from service.bundle import Bundle
from service.decoders.parts import Parts
from service.search.topk import TopK

# Vectors (Q, D) and a number K to the min(K, N) rows with the largest inner products, best first.
Search = Callable[[NDArray[np.float32], int], TopK]


class Scorer(Protocol):
    """Raw scores of chosen labels, those of its decoder but for rounding; may be called from several threads."""

    @property
    def exact(self) -> bool:
        """Whether its decoder misses none of the best labels."""
        ...

    @property
    def cheap_labels(self) -> int:
        """So many are scored about as quickly as the best of all labels are found."""
        ...

    @property
    def most_fetched(self) -> int:
        """To find more of the best takes about as long as to score all labels."""
        ...

    def score(self, outputs: Mapping[str, NDArray[np.float32]], rows_N: NDArray[np.int64]) -> NDArray[np.float32]:
        """Scores of some labels, float32 (N,).

        Args:
            outputs: as for a decoder on the CPU, of one query.
            rows_N: distinct labels, rising.
        """
        ...

    def explain(self, outputs: Mapping[str, NDArray[np.float32]], rows_N: NDArray[np.int64]) -> Sequence[Parts]:
        """What the scores of some labels are made of, in their order; see ``score``."""
        ...


class Decoder(Protocol):
    """One method's search, exact unless the bundle's index is approximate; may be called from several threads."""

    @property
    def scorer(self) -> Scorer:
        """What scores labels one by one, from the same tables, on the CPU."""
        ...

    @property
    def required_outputs(self) -> Mapping[str, tuple[int, ...]]:
        """Name of each encoder output that ``decode`` reads, and its shape after Q."""
        ...

    def decode(self, outputs: Mapping[str, Any], k: int) -> TopK:
        """The min(k, L) best labels of each query.

        Args:
            outputs: finite float32 arrays of ``required_outputs``, Q rows each; for decoders in `service.resident`
                they are `OrtValue`s on their device.
            k: at least 1.
        """
        ...


class BundleDecoder(Decoder, Protocol):
    """A decoder that reads any bundle of its method."""

    @classmethod
    def from_bundle(cls, bundle: Bundle, *, threads: int) -> Self:
        """Set up tables or index; the bundle's method section is this decoder's.

        Args:
            bundle: a verified bundle.
            threads: that one call of ``decode`` may use.

        Raises:
            BundleError: an index file contradicts the manifest.
        """
        ...
