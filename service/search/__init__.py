"""Search among vectors and scores: exact or approximate, of labels or of training rows."""
