"""One-vs-all: the labels whose classifiers answer the query with the largest logits.

A label's bias is the last dimension of its vector, and every query vector ends in 1, so that an inner product is a
logit.
"""

from __future__ import annotations

from service.decoders.search import SearchDecoder


class OvaDecoder(SearchDecoder):
    """Scores are logits."""
