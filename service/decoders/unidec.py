"""UniDEC: the labels whose vectors have the largest inner products with the query's.

Both halves of every vector (dual encoder and classifier) are normalised and scaled by sqrt(1/2) before the bundle is
written and inside the graph, so a score is the mean of two cosines.
"""

from __future__ import annotations

from service.decoders.search import SearchDecoder


class UnidecDecoder(SearchDecoder):
    """Scores are means of cosines, between -1 and 1."""
