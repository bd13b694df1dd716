"""Texts of the training rows that vote, for DECLARE's explanations: read again from the data that it was trained on.

An artifact holds no text of a training point, so that who has one cannot read the data. Who exports with the data at
hand may put the texts into the bundle.

Letters: G distinct training rows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model_export.errors import UsageError
from training.artifact import Artifact
from training.data.records import Source

OPTION = "--neighbour-texts"


def read_row_texts(artifact: Artifact, source: Source) -> list[str | None]:
    """The text of each distinct training row of a DECLARE artifact: that of the first point that it stands for.

    Of a row that Gandalf made of a label it is the label's text. Points are streamed; only the texts are kept.

    Args:
        artifact: of DECLARE, trained on texts.
        source: the data that it was trained on.

    Raises:
        UsageError: the artifact is another, or older than the numbers of its points, or was trained on other data.
        DataError: the data cannot be read.
    """
    points_G = _points(artifact)
    if source.card.input != "text" or source.label_ids != artifact.label_ids:
        raise _other_data(artifact, source, "other labels")
    rows = {point: row for row, point in enumerate(points_G.tolist())}
    texts: list[str | None] = [_text_of_label(artifact, point) for point in points_G.tolist()]
    for number, point in enumerate(source.points("trn")):
        row = rows.pop(number, None)
        if row is not None:
            if not np.array_equal(point.labels, _labels(artifact, row)):
                raise _other_data(artifact, source, f"other labels of point {number}")
            texts[row] = point.text
    if missing := [point for point in rows if point >= 0]:
        raise _other_data(artifact, source, f"no point {min(missing)}")
    return texts


def _points(artifact: Artifact) -> NDArray[np.int64]:
    method, text = artifact.config.run.method.name, artifact.config.shape.text
    if method != "declare" or not text:
        kind = "texts" if text else "features"
        raise UsageError(f"{OPTION}: expected an artifact of declare with texts, found {method} with {kind}")
    points_G = artifact.tables.get("votes.points")
    if points_G is None:
        raise UsageError(f"{OPTION}: expected an artifact that numbers its points, found an older one; train it again")
    return points_G


def _text_of_label(artifact: Artifact, point: int) -> str | None:
    return artifact.label_texts[-1 - point] if point < 0 and artifact.label_texts is not None else None


def _labels(artifact: Artifact, row: int) -> NDArray[np.int32]:
    """Those of a distinct row: there are no texts to tell by whether a point is the one that was trained on."""
    starts_G, labels = artifact.tables["votes.indptr"], artifact.tables["votes.indices"]
    labels_K: NDArray[np.int32] = labels[starts_G[row] : starts_G[row + 1]]
    return labels_K


def _other_data(artifact: Artifact, source: Source, found: str) -> UsageError:
    expected = f"the data that {artifact.path} was trained on"
    return UsageError(f"{OPTION}: expected {expected}, found {found} in {source.path}")
