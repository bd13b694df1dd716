"""UniDEC: the labels whose vectors have the largest inner products with the query's.

A vector is that of the dual encoder or of the classifier, normalised, or both, each scaled by sqrt(1/2): all of that is
done before the bundle is written and inside the graph. So a score is a cosine, or the mean of two.
"""

from __future__ import annotations

from service.decoders.search import SearchDecoder


class UnidecDecoder(SearchDecoder):
    """Scores are means of cosines, between -1 and 1."""
