"""The data card: the few facts about a data set that training and evaluation need beside its points."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, with_config

from training.data.files import DataError, excerpt, read_lines

FILE_NAME = "card.json"


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class Card:
    """What a data set is, apart from its points.

    Attributes:
        name: the data set's name; the folder's name unless `card.json` gives one.
        input: whether points are texts or bags of features.
        label_count: number of labels, L.
        feature_count: number of features; None for text.
        has_label_texts: whether labels have texts.
        propensity_a: A of the propensity model (Jain et al. 2016), a property of the data set and never guessed.
        propensity_b: its B.
    """

    name: str
    input: Literal["text", "features"]
    label_count: int
    feature_count: int | None
    has_label_texts: bool
    propensity_a: float = 0.55
    propensity_b: float = 1.5


def read_card(
    folder: Path,
    *,
    input: Literal["text", "features"],
    label_count: int,
    feature_count: int | None,
    has_label_texts: bool,
) -> Card:
    """Join what the data files say with what the optional `card.json` adds: name, propensity_a, propensity_b.

    Raises:
        DataError: `card.json` is no JSON object, has an unknown key or a value of the wrong kind.
    """
    stated = _read_stated(folder / FILE_NAME)
    return Card(
        name=str(stated.get("name", folder.resolve().name)),
        input=input,
        label_count=label_count,
        feature_count=feature_count,
        has_label_texts=has_label_texts,
        propensity_a=_positive(folder, stated, "propensity_a", Card.propensity_a),
        propensity_b=_positive(folder, stated, "propensity_b", Card.propensity_b),
    )


def write_card(folder: Path, name: str) -> None:
    """Write a `card.json` with the default propensities, where its owner finds the keys to edit."""
    card = {"name": name, "propensity_a": Card.propensity_a, "propensity_b": Card.propensity_b}
    (folder / FILE_NAME).write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _read_stated(file: Path) -> dict[str, object]:
    if not file.exists():
        return {}
    text = "\n".join(content for _, content in read_lines(file))
    try:
        stated = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(file, getattr(error, "lineno", 1), "a JSON object", f"broken JSON ({error})") from error
    if type(stated) is not dict:
        raise DataError(file, 1, "a JSON object", excerpt(stated))
    known = ("name", "propensity_a", "propensity_b")
    for key in stated:
        if key not in known:
            raise DataError(file, None, f"the keys {', '.join(known)}", excerpt(key))
    if "name" in stated and not (type(stated["name"]) is str and stated["name"]):
        raise DataError(file, None, "a non-empty string as 'name'", excerpt(stated["name"]))
    return stated


def _positive(folder: Path, stated: dict[str, object], key: str, default: float) -> float:
    value = stated.get(key, default)
    if not (type(value) in (int, float) and isinstance(value, int | float) and value > 0 and math.isfinite(value)):
        raise DataError(folder / FILE_NAME, None, f"a finite number above 0 as '{key}'", excerpt(value))
    return float(value)
