"""How good the answers of a running service were: its prediction log, scored against labels that became known later.

The log is the service's (`service/README.md` describes its columns), feedback is a table: ``request_id``, ``labels``
and, where requests had several queries, ``position``. Only predictions with feedback are scored.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from training import metrics
from training.artifact import Artifact
from training.data.files import DataError, excerpt
from training.data.tables import Row, read_table

SUFFIX = ".parquet"
LABEL_SEPARATOR = ","

# A request's id and the place of a query in it.
Key = tuple[str, int]


class Prediction(NamedTuple):
    """An answer of the log.

    Attributes:
        time: of the answer.
        k: labels that were wanted.
        labels: ids, best first.
    """

    time: object
    k: int
    labels: Sequence[str]


@dataclass(frozen=True)
class Logged:
    """What the log has of one version of a model.

    Attributes:
        predictions: all of them.
        scored: those with feedback, the last one where a request's id came again.
    """

    predictions: int
    scored: Mapping[Key, Prediction]


def score_log(
    folder: Path, feedback: Path, ks: Sequence[int], artifact: Artifact | None = None
) -> dict[str, dict[str, float]]:
    """Measures of each version of a model, by "model:version".

    Measures at rank k are of the predictions that were asked for at least k labels; a rank without any has none.

    Args:
        folder: the log.
        feedback: JSON lines, CSV or Parquet with the columns ``request_id`` and ``labels`` and perhaps ``position``;
            labels of one query may be spread over several rows.
        ks: ranks.
        artifact: tells propensities by its training counts; without it there is no ``PSP@k``.

    Returns:
        For each version "predictions" and "with_feedback", which are counts, and the measures of `metrics.report`, in
        percent.

    Raises:
        DataError: the log or the feedback is malformed, or they have nothing in common.
    """
    relevant = read_feedback(feedback)
    logged = read_log(folder, relevant)
    if not any(version.scored for version in logged.values()):
        raise DataError(feedback, None, f"feedback on predictions in {folder}", f"none on {len(relevant):,} queries")
    return {
        identity: {"predictions": version.predictions, "with_feedback": len(version.scored)}
        | _measures(version.scored, relevant, ks, artifact)
        for identity, version in sorted(logged.items())
    }


def read_feedback(file: Path) -> dict[Key, list[str]]:
    """Relevant labels by query.

    Raises:
        DataError: the table is malformed or has no rows.
    """
    relevant: defaultdict[Key, dict[str, None]] = defaultdict(dict)
    for row in read_table(file, ("request_id", "labels"), optional=("position",)):
        key = row.name("request_id"), _position(row)
        relevant[key] |= dict.fromkeys(row.labels("labels", LABEL_SEPARATOR))
    if not relevant:
        raise DataError(file, None, "at least one row", "none")
    return {key: list(labels) for key, labels in relevant.items()}


def read_log(folder: Path, wanted: Mapping[Key, object]) -> dict[str, Logged]:
    """The log's predictions by "model:version"; of those that are not wanted, only the number.

    Raises:
        DataError: there is no such folder, no whole file in it, or one is malformed.
    """
    files = sorted(folder.glob(f"*{SUFFIX}")) if folder.is_dir() else []
    if not files:
        raise DataError(folder, None, f"a folder with files of a prediction log (*{SUFFIX})", "none")
    counts: Counter[str] = Counter()
    scored: defaultdict[str, dict[Key, Prediction]] = defaultdict(dict)
    for file in files:
        for row in read_table(file, ("time", "request_id", "position", "model", "version", "k", "labels")):
            identity = f"{row.text('model')}:{row.text('version')}"
            counts[identity] += 1
            key = row.name("request_id"), _position(row)
            if key in wanted:
                found, earlier = _prediction(row), scored[identity].get(key)
                if earlier is None or earlier.time <= found.time:  # type: ignore[operator]
                    scored[identity][key] = found
    return {identity: Logged(count, scored[identity]) for identity, count in counts.items()}


def _prediction(row: Row) -> Prediction:
    time, k, labels = (row.values[column] for column in ("time", "k", "labels"))
    if time is None or type(k) is not int or type(labels) is not list:
        raise row.error("a prediction: time, k and labels", excerpt((time, k, labels)))
    return Prediction(time, k, labels)


def _position(row: Row) -> int:
    value = row.values["position"]
    if value is None or value == "":
        return 0
    text = str(value)
    if not (text.isascii() and text.isdigit()):
        raise row.error("the place of a query, from 0, in column 'position'", excerpt(value))
    return int(text)


def _measures(
    scored: Mapping[Key, Prediction],
    relevant: Mapping[Key, Sequence[str]],
    ks: Sequence[int],
    artifact: Artifact | None,
) -> dict[str, float]:
    measures: dict[str, float] = {}
    for k in sorted(set(ks)):
        asked = {key: prediction for key, prediction in scored.items() if prediction.k >= k}
        if asked:
            found = _report([one.labels for one in asked.values()], [relevant[key] for key in asked], k, artifact)
            measures |= {name: value for name, value in found.items() if artifact or not name.startswith("PSP@")}
    return measures


def _report(
    ranked: Sequence[Sequence[str]], relevant: Sequence[Sequence[str]], k: int, artifact: Artifact | None
) -> dict[str, float]:
    """`metrics.report` of ids."""
    rows: dict[str, int] = {} if artifact is None else {id_: row for row, id_ in enumerate(artifact.label_ids)}
    ranked_NK = np.full((len(ranked), k), metrics.PADDING, dtype=np.int64)
    for place, labels in enumerate(ranked):
        numbers = [rows.setdefault(id_, len(rows)) for id_ in labels[:k]]
        ranked_NK[place, : len(numbers)] = numbers
    indices = [rows.setdefault(id_, len(rows)) for labels in relevant for id_ in labels]
    label_count = max(1, len(rows))  # where nothing was answered and nothing was right, there still is a table
    offsets = np.cumsum([0, *map(len, relevant)])
    targets_NL = csr_array(
        (np.ones(len(indices), dtype=np.float32), np.asarray(indices, dtype=np.int64), offsets),
        shape=(len(relevant), label_count),
    )
    return metrics.report(ranked_NK, targets_NL, _inverse_propensities(label_count, artifact), [k])


def _inverse_propensities(label_count: int, artifact: Artifact | None) -> NDArray[np.float64]:
    """Of each label; those that the artifact does not have were never seen in training."""
    if artifact is None:
        return np.ones(label_count)
    unseen = np.zeros(label_count - len(artifact.label_ids), dtype=np.int64)
    card, counts_L = artifact.config.card, np.concatenate([artifact.label_counts, unseen])
    return metrics.inverse_propensities(counts_L, artifact.config.counted_rows, card.propensity_a, card.propensity_b)
