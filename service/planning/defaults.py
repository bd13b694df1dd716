"""Sizes that nothing derives, where a user gives none. Nothing is imported here: the command's help needs them."""

from __future__ import annotations

# Words and sub-words that training makes tokens of, at most.
VOCABULARY = 48_000
# What the embedded sample has: bytes of a label's id and text, and labels of a training row.
LABEL_BYTES, ROW_LABELS = 78, 4.5
# Distinct training rows of DECLARE.
ROWS_PER_LABEL = 10
# Of a query.
TOKENS = 16

# Of a pod, as `k8s/base` asks for them, and the share of it that a load may take.
PROCESSORS, MEMORY, UTILISATION = 2.0, "2Gi", 0.6
