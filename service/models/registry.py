"""The models that are loaded, by name and version, and which of them answers a request."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from service.errors import BundleError, Conflict, InvalidRequest, RequestError, UnknownModel
from service.metrics import Metrics
from service.models.model import Model
from service.models.placing import Placing
from service.models.shadow import Shadow
from service.models.split import Split

logger = logging.getLogger(__name__)


class Registry:
    """All models of the service; everything here happens on the event loop.

    Who asks for a model gets one of the versions that are loaded at that moment, and keeps it until it has its answer:
    a version that is replaced first answers what it has been asked, then its process ends.

    Args:
        metrics: where the models' series live.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._placings: dict[Model, Placing] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._by_name: dict[str, Split] = {}
        self._by_version: dict[str, Model] = {}
        self._answering: Sequence[Model] = ()
        self._only: Split | None = None
        self._lone: Model | None = None
        self._shadows: dict[str, list[Shadow]] = {}

    @property
    def models(self) -> Sequence[Model]:
        """The loaded models in the order in which they came."""
        return list(self._placings)

    @property
    def shadows(self) -> Mapping[str, Sequence[Shadow]]:
        """By the name of a model, what else is asked what it is asked; most have none."""
        return self._shadows

    def placing(self, model: Model) -> Placing:
        """What a loaded version does beside the others."""
        return self._placings[model]

    def start(self, models: Sequence[Model]) -> None:
        """Put the first models in; of several versions of one name, the last answers.

        Raises:
            BundleError: versions of one name take different queries.
        """
        last = {model.name: model for model in models}
        try:
            self._arrange({model: Placing(weight=float(model is last[model.name])) for model in models})
        except Conflict as error:
            raise BundleError(str(error)) from None

    def replace(self, model: Model) -> None:
        """Let a model answer all that its name is asked from now on, and let its other versions go.

        Its shadows go with them: a version is replaced by what was tried beside it, or by something else.
        """
        kept = {other: placing for other, placing in self._placings.items() if other.name != model.name}
        self._rearrange({**kept, model: Placing()})

    def add(self, model: Model, placing: Placing) -> None:
        """Put a version beside the others of its name, in the place of an equal one.

        Raises:
            Conflict: nobody would answer for its name, or a shadow takes other queries than those whose it would be.
        """
        kept = {other: place for other, place in self._placings.items() if other.identity != model.identity}
        self._rearrange({**kept, model: placing})

    def place(self, wanted: str, placing: Placing) -> Model:
        """Change what a loaded version does.

        Args:
            wanted: "name:version", or "name" where one version is loaded.
            placing: from now on.

        Raises:
            UnknownModel: it is not loaded.
            Conflict: see `add`; or the name stands for several versions.
        """
        found = self._matching(wanted)
        if len(found) > 1:
            raise Conflict(f"{wanted} has several versions: expected one of {_listed(found)}")
        self._rearrange({**self._placings, found[0]: placing})
        return found[0]

    def retire(self, wanted: str) -> Sequence[Model]:
        """Let a version go, or all versions of a name.

        Args:
            wanted: "name:version" or "name".

        Returns:
            The models that go.

        Raises:
            UnknownModel: no such model is loaded.
            Conflict: nothing would be left, or nobody would answer for its name.
        """
        found = self._matching(wanted)
        kept = {model: placing for model, placing in self._placings.items() if model not in found}
        if not kept:
            raise Conflict(f"{wanted} is all that is loaded: load another model first")
        self._rearrange(kept)
        return found

    def get(self, wanted: str | None) -> Model:
        """The model that answers a request.

        Args:
            wanted: "name", which is shared by its versions, "name:version", or None for the only name.

        Raises:
            InvalidRequest: None, while several models are loaded.
            UnknownModel: no such model is loaded.
        """
        if wanted is None:
            if self._only is None:
                raise InvalidRequest(f"model: expected one of {self._names()}, because several are loaded; found none")
            return self._only.draw()
        if (split := self._by_name.get(wanted)) is not None:
            return split.draw()
        if (model := self._by_version.get(wanted)) is not None:
            return model
        raise UnknownModel(f"no model {wanted!r} is loaded; loaded are {self._names()}")

    def main(self, wanted: str) -> Model:
        """The version that stands for others: of those that a request may name so, the one with the largest weight.

        Args:
            wanted: "name" or "name:version".

        Raises:
            UnknownModel: no such model is loaded.
        """
        return max(reversed(self._matching(wanted)), key=lambda model: self._placings[model].weight)

    def has_room(self) -> bool:
        """Whether a model would take a query now."""
        if self._lone is not None:  # asked for every request, and any() takes longer than the answer
            return self._lone.has_room()
        return any(model.has_room() for model in self._answering)

    def refusal(self) -> RequestError | None:
        """Why no model takes even one query now, or None when one would."""
        return None if self.has_room() else [model.refuse() for model in self._answering][-1]

    def unhealthy(self) -> str | None:
        """Which models that answer have stopped for good, in words, or None."""
        names = [model.identity for model in self._answering if not model.healthy]
        return (
            f"{', '.join(names)} stopped after an internal error: load the bundle again or restart the service"
            if names
            else None
        )

    async def close(self) -> None:
        """Answer what is queued and end all processes."""
        await asyncio.gather(*(model.close() for model in self._placings), *self._leaving)

    def _matching(self, wanted: str) -> list[Model]:
        found = [model for model in self._placings if wanted in (model.name, model.identity)]
        if not found:
            raise UnknownModel(f"no model {wanted!r} is loaded; loaded are {self._names()}")
        return found

    def _rearrange(self, placings: Mapping[Model, Placing]) -> None:
        """Arrange anew, and let go whom the new arrangement does not hold."""
        gone = [model for model in self._placings if model not in placings]
        self._arrange(placings)
        for model in gone:
            task = asyncio.get_running_loop().create_task(self._let_go(model))
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    def _arrange(self, placings: Mapping[Model, Placing]) -> None:
        """Build all tables anew; who fails the checks changes nothing."""
        shares: defaultdict[str, list[tuple[Model, float]]] = defaultdict(list)
        shadows: defaultdict[str, list[Shadow]] = defaultdict(list)
        for model, (weight, shadow) in placings.items():
            shares[model.name].append((model, weight))
            if shadow:
                shadows[model.name].append(Shadow(model, shadow, self._metrics.shadow(model.name, model.version)))
        for name, versions in shares.items():
            _check(name, [model for model, weight in versions if weight], [model for model, _ in versions])
        self._placings = dict(placings)
        self._by_name = {name: Split(versions) for name, versions in shares.items()}
        self._by_version = {model.identity: model for model in placings}
        self._answering = [model for model, (_, shadow) in placings.items() if not shadow]
        self._only = next(iter(self._by_name.values())) if len(self._by_name) == 1 else None
        self._lone = self._answering[0] if len(self._answering) == 1 else None
        self._shadows = dict(shadows)

    async def _let_go(self, model: Model) -> None:
        """Have a model answer what it was asked, end its process, and forget its series."""
        await model.close()
        if model.identity not in self._by_version:  # else an equal one goes on with them
            self._metrics.forget(model.name, model.version)
        logger.info("%s has ended", model.identity)

    def _names(self) -> str:
        return _listed(self._placings)


def check_distinct(models: Iterable[Model]) -> None:
    """Hold models against each other.

    Raises:
        BundleError: two are the same.
    """
    paths: dict[str, Path] = {}
    for model in models:
        if (first := paths.setdefault(model.identity, model.path)) is not model.path:
            raise BundleError(f"{model.path}: {model.identity} is given twice, first as {first}")


def _check(name: str, answering: Sequence[Model], versions: Sequence[Model]) -> None:
    if not answering:
        raise Conflict(f"nobody would answer for {name}: expected a weight above 0 for one of {_listed(versions)}")
    kinds = {model.input.kind for model in versions}
    if len(kinds) > 1:
        raise Conflict(
            f"versions of {name} that answer side by side must take the same queries, "
            f"found {' and '.join(sorted(kinds))}"
        )


def _listed(models: Iterable[Model]) -> str:
    return ", ".join(model.identity for model in models)
