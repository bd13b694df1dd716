"""Bodies and answers of `/admin`."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from service.live.changes import LabelChanges, NewLabel
from service.models.loading import Load, State
from service.models.placing import Placing

Weight = Annotated[float, Field(ge=0.0, le=1e6)]
Shadow = Annotated[float, Field(gt=0.0, le=1.0)]

# What the documentation says of the two fields of a placing: never both, and where a version is placed anew, one.
WEIGHED: dict[str, Any] = {"required": ["weight"], "properties": {"weight": {"type": "number"}}}
FOLLOWING: dict[str, Any] = {"required": ["shadow"], "properties": {"shadow": {"type": "number"}}}


class PlacingRequest(BaseModel):
    """What a version shall do beside the others of its model: answer a share of the requests, or follow them."""

    model_config = ConfigDict(
        extra="forbid", strict=True, allow_inf_nan=False, json_schema_extra={"not": {"allOf": [WEIGHED, FOLLOWING]}}
    )

    weight: Weight | None = Field(
        None,
        description="Requests that name only the model are shared among its versions in proportion to their weights; "
        "with 0 a version answers those alone that name it.",
    )
    shadow: Shadow | None = Field(
        None, description="Share of the model's requests that this version is asked as well, to compare its answers."
    )

    @model_validator(mode="after")
    def _either(self) -> Self:
        if self.weight is not None and self.shadow is not None:
            raise ValueError("expected weight or shadow, found both")
        return self

    @property
    def placing(self) -> Placing | None:
        """The same, or None where neither is given."""
        if self.shadow is not None:
            return Placing(weight=0.0, shadow=self.shadow)
        return None if self.weight is None else Placing(weight=self.weight)


class LoadRequest(PlacingRequest):
    """The body of `POST /admin/models`; without `weight` and `shadow` the bundle replaces its model's versions."""

    bundle: str = Field(description="Name of a folder in the folder that XMC_MODELS_DIR names.")
    wait: bool = Field(False, description="Answer when the load has ended, instead of at once.")


class LoadStatus(BaseModel):
    """One bundle that is loaded while the service runs, or could not be."""

    load: int = Field(description="Its number, for `GET /admin/loads/{load}`.")
    bundle: str
    state: State
    model: str | None = Field(description='"name:version", once it is known.')
    reason: str | None = Field(description="Why it failed; what was served before is served on.")
    seconds: float | None = Field(description="From its turn to its end.")

    @classmethod
    def of(cls, load: Load) -> LoadStatus:
        """What is to be said of a load."""
        return cls(
            load=load.number,
            bundle=load.bundle,
            state=load.state,
            model=load.model,
            reason=load.reason,
            seconds=load.seconds,
        )


class LoadList(BaseModel):
    """Loads in their order; the oldest that have ended are forgotten."""

    loads: list[LoadStatus]


class Retired(BaseModel):
    """Versions that answer what they were asked, and then go."""

    retired: list[str] = Field(description='Each as "name:version".')


class LabelCounts(BaseModel):
    """What all changes of a model's labels come to, in numbers."""

    disabled: int = Field(description="Labels that are not answered.")
    added: int = Field(description="Labels that were added.")

    @classmethod
    def of(cls, changes: LabelChanges) -> LabelCounts:
        """The numbers of some changes."""
        return cls(disabled=len(changes.disabled), added=len(changes.added))


class LabelState(BaseModel):
    """What all changes of a model's labels come to."""

    disabled: list[str] = Field(description="Ids of the labels that are not answered.")
    added: list[NewLabel] = Field(description="Labels that were added, in that order.")
    journal: str = Field(description="Name of the file in which this is kept.")

    @classmethod
    def of(cls, changes: LabelChanges, journal: str) -> LabelState:
        """What is to be said of some changes."""
        added = [NewLabel(id=id_, text=text) for id_, text in changes.added.items()]
        return cls(disabled=changes.disabled, added=added, journal=journal)
