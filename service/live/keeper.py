"""Labels of all models as administrators change them: who decides, writes down and tells the processes that compute.

Everything here happens on the event loop, but for the writing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from service.errors import (
    BundleError,
    Conflict,
    InvalidRequest,
    NotReady,
    RequestError,
    shown,
    without_folders,
)
from service.live.changes import LabelChange, LabelChanges
from service.live.journal import Journal, journal_name
from service.live.proposals import Decision, Reception
from service.metrics import Metrics
from service.models.model import Model
from service.models.registry import Registry

logger = logging.getLogger(__name__)


@dataclass
class _Book:
    """A model's journal; one change or one new version at a time."""

    journal: Journal
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


class LabelKeeper:
    """Changes labels, and brings versions that come up to what was changed before.

    Args:
        registry: of the loaded models.
        metrics: tells how many labels are disabled and added.
        folder: where journals lie; None: beside the first bundle of each name.
    """

    def __init__(self, registry: Registry, metrics: Metrics, folder: Path | None) -> None:
        self._registry = registry
        self._metrics = metrics
        self._folder = folder
        self._books: dict[str, _Book] = {}
        self._running: set[asyncio.Task[LabelChanges]] = set()

    @asynccontextmanager
    async def joining(self, *models: Model) -> AsyncIterator[None]:
        """Tell versions that are not among the others yet what was changed of their models' labels.

        Until the block ends, by when they are among the others, nothing changes.

        Raises:
            BundleError: one cannot do as the others do, or a journal cannot be read.
        """
        books = {model.name: await self._book(model) for model in models}
        async with AsyncExitStack() as turns:
            for book in books.values():
                await turns.enter_async_context(book.turn)
            for model in models:
                await self._tell(model, books[model.name].journal.changes)
            yield

    def changes(self, wanted: str) -> tuple[LabelChanges, str]:
        """What was changed of a model's labels, and the name of the journal.

        Raises:
            UnknownModel: no such model is loaded.
            InvalidRequest: it is named with a version.
        """
        book = self._books[self._name(wanted)]
        return book.journal.changes, book.journal.path.name

    async def change(self, wanted: str, change: LabelChange) -> LabelChanges:
        """Change a model's labels in all its versions: written down for good first, and seen by queries then.

        Returns:
            What all changes come to.

        Raises:
            UnknownModel: no such model is loaded.
            InvalidRequest: it is named with a version, or no version has a label that is to be disabled or enabled.
            Conflict: a label cannot be added or removed; the sentence says why.
            NotSaved: it could not be written.
            NotReady: no version would see it.
        """
        # Whoever asked may leave; what has begun is brought to its end all the same.
        task = asyncio.get_running_loop().create_task(self._change(self._name(wanted), change))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Bring to an end what has begun, and let go of the journals."""
        await asyncio.gather(*self._running, return_exceptions=True)
        for book in self._books.values():
            book.journal.close()

    async def _change(self, name: str, change: LabelChange) -> LabelChanges:
        book = self._books[name]
        async with book.turn:
            before = book.journal.changes
            before.after(change)
            models = [model for model in self._registry.models if model.name == name and model.healthy]
            if not models:
                raise NotReady(f"no version of {name} runs", retry_after_seconds=1)
            decision = Decision.DROPPED
            try:
                receptions = await _received(change, models)
                _check(name, change, before, receptions)
                await asyncio.to_thread(book.journal.append, change)
                decision = Decision.DONE
            finally:
                # Who has died meanwhile learns it when it comes again.
                await asyncio.gather(*(model.decide(decision) for model in models), return_exceptions=True)
            for model, reception in zip(models, receptions, strict=True):
                _note(model, reception)
            self._metrics.set_labels(name, book.journal.changes)
            return book.journal.changes

    async def _book(self, model: Model) -> _Book:
        if (book := self._books.get(model.name)) is None:
            path = (self._folder or model.path.resolve().parent) / journal_name(model.name)
            try:
                book = self._books[model.name] = _Book(await asyncio.to_thread(Journal, path, model.name))
            except BundleError as error:
                logger.error("%s", error)
                raise BundleError(without_folders(str(error), [path])) from error
        return book

    async def _tell(self, model: Model, changes: LabelChanges) -> None:
        """Have a version do at once what others have done one by one."""
        if not (change := changes.as_one()).is_empty:
            try:
                reception = await model.propose(change)
                await model.decide(Decision.DONE)
            except RequestError as error:
                raise BundleError(f"{model.path}: its labels cannot be what they were: {error}") from error
            _note(model, reception)
        self._metrics.set_labels(model.name, changes)

    def _name(self, wanted: str) -> str:
        model = self._registry.main(wanted)
        if wanted != model.name:
            raise InvalidRequest(f"labels change in all versions of a model: expected {model.name}, found {wanted}")
        return model.name


async def _received(change: LabelChange, models: Sequence[Model]) -> list[Reception]:
    """What all versions say to a change.

    Raises:
        RequestError: one cannot make it, or has died; all have answered by then, for the next word would cross theirs.
    """
    answers = await asyncio.gather(*(model.propose(change) for model in models), return_exceptions=True)
    receptions = []
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
        receptions.append(answer)
    return receptions


def _note(model: Model, reception: Reception) -> None:
    if reception.refusal is not None:
        logger.warning("%s does not answer the labels that were added: %s", model.identity, reception.refusal)


def _check(name: str, change: LabelChange, before: LabelChanges, receptions: Sequence[Reception]) -> None:
    """Hold a change against what all versions say of it.

    Raises:
        InvalidRequest: see `LabelKeeper.change`.
        Conflict: the same.
    """
    unknown = set.intersection(*(set(reception.unknown) for reception in receptions))
    for kind, ids in (("disable", change.disable), ("enable", change.enable)):
        if (place := _first(ids, unknown)) is not None:
            raise InvalidRequest(f"{kind}[{place}]: expected the id of a label of {name}, found {shown(ids[place])}")
    own = [set(reception.own) for reception in receptions]
    if (place := _first(change.remove, set.union(*own))) is not None:
        raise Conflict(
            f"remove[{place}]: {shown(change.remove[place])} is a label of a bundle that is served; disable it instead"
        )
    new = [label.id for label in change.add]
    if (place := _first(new, set.intersection(*own) - set(before.added))) is not None:
        raise Conflict(f"add[{place}]: {shown(new[place])} is a label of {name} already")
    refusals = [reception.refusal for reception in receptions]
    if (refusal := refusals[0]) is not None and all(refusals):
        raise Conflict(refusal)


def _first(ids: Iterable[str], wrong: set[str]) -> int | None:
    return next((place for place, id_ in enumerate(ids) if id_ in wrong), None)
