"""What a loaded version does beside the others of its model."""

from __future__ import annotations

from typing import NamedTuple


class Placing(NamedTuple):
    """Which requests a version answers, and which it is asked besides.

    Attributes:
        weight: requests that name only the model are shared among its versions in proportion to their weights; with 0 a
            version answers those alone that name it.
        shadow: share of the model's requests, 0 to 1, that this version is asked as well, without anybody waiting.
    """

    weight: float = 1.0
    shadow: float = 0.0
