"""The JSON of requests and answers, as pydantic models made for the model that is served."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    TypeAdapter,
    WithJsonSchema,
    create_model,
    model_validator,
)

from models.base import OnlineModel
from models.heads.classification import LabelName
from service.settings import LimitSettings


def _no_step(name: str) -> str:
    if name in {".", ".."}:
        raise ValueError("this name can't stand in a path")
    return name


def _stripped(text: str) -> str:
    """Strip a text once its length is known to be right: the document can't say that space does not count."""
    if not text.strip():
        raise ValueError("there is nothing but space in it")
    return text.strip()


MOST_LISTED = 1000  # classes in one answer
STRICT = ConfigDict(extra="forbid", strict=True)

Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Time = Annotated[
    float,
    PlainSerializer(lambda at: datetime.fromtimestamp(at, UTC).isoformat(), return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time"}, mode="serialization"),
]


VersionNumber = Annotated[int, Field(ge=0, lt=2**63)]
MOST_FORGOTTEN = 10_000  # items, of one request


class PredictRequest(BaseModel):
    """Instances to predict, all answered by one version."""

    model_config = STRICT
    instances: list[Any]
    top_k: Annotated[int, Field(ge=1)] | None = None


class FeedbackItem(BaseModel):
    """A label for an earlier prediction, by its id, or for an instance that is sent along."""

    model_config = STRICT
    prediction_id: Name | None = None
    instance: Any = None
    label: Any
    weight: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)] = 1.0
    key: Name | None = None


class FeedbackRequest(BaseModel):
    """Feedback that is accepted as a whole or not at all."""

    model_config = STRICT
    feedback: list[FeedbackItem]


class Predictions(BaseModel):
    """What one version says."""

    model_version: int
    predictions: list[Any]


class ExplainRequest(BaseModel):
    """An instance to explain, or an earlier prediction by its id, and the label in question: by default the predicted one."""

    model_config = STRICT
    instance: Any = None
    prediction_id: Name | None = None
    label: Any = None


class TokenAttribution(BaseModel):
    """What a token of a text adds, and where it is, in characters."""

    token: str
    start: int
    end: int
    value: float


class Explanation(BaseModel):
    """What each part of an instance adds on the way from `base_value` (all parts left out) to `value`."""

    model_version: int
    label: Any = None
    explained: Annotated[str, Field(description="What `value` is.", examples=["log_odds", "value"])]
    value: float
    base_value: float
    baseline: Annotated[str, Field(description="What stands in for a part that is left out.")]
    method: Literal["exact", "permutations"]
    evaluations: int
    attributions: Annotated[
        list[float] | dict[str, float] | list[list[float]] | list[TokenAttribution],
        Field(description="In the shape of the instance: by number, by field, by patch of the picture, by token."),
    ]


class Accepted(BaseModel):
    """The place of a feedback item in the log."""

    seq: int


class FeedbackAccepted(BaseModel):
    """Feedback that is on stable storage. `model_version` is there when `Prefer: wait` saw it served."""

    accepted: list[Accepted]
    log_seq: int
    model_version: int | None = None


class FeedbackStatus(BaseModel):
    """What became of a feedback item."""

    seq: int
    status: Literal["pending", "applied", "holdout", "quarantined", "skipped", "forgotten"]
    model_version: int | None = None
    reason: str | None = None


# It stands in a path: no name that a client's URL library takes for a step up.
ClassName = Annotated[LabelName, AfterValidator(_no_step)]
Description = Annotated[str, StringConstraints(min_length=1, max_length=2000), AfterValidator(_stripped)]
Descriptions = Annotated[list[Description], Field(max_length=20)]


class ClassDescription(BaseModel):
    """What a class is, in words; several descriptions are averaged, and none leaves it to be learned from labels."""

    model_config = STRICT
    description: Description | None = None
    descriptions: Descriptions | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if self.description is not None and self.descriptions is not None:
            raise ValueError("give description or descriptions")
        return self

    def texts(self) -> list[str]:
        """Return all descriptions."""
        return [*([] if self.description is None else [self.description]), *(self.descriptions or [])]


class NewClass(ClassDescription):
    """A class that is to be known before its first label."""

    name: ClassName


class ChangedClass(ClassDescription):
    """New descriptions of a class; an empty list leaves it to be learned from labels."""

    @model_validator(mode="after")
    def _at_least_one(self) -> Self:
        if self.description is None and self.descriptions is None:
            raise ValueError("give description or descriptions")
        return self


class ClassAccepted(BaseModel):
    """A class as it stands in the log. `model_version` is there once the version that is served knows it so."""

    name: str
    descriptions: list[str]
    seq: int
    model_version: int | None = None


class KnownClass(BaseModel):
    """A class of the model that is served; `items` counts its labels so far."""

    name: str
    descriptions: list[str]
    items: int


class ClassList(BaseModel):
    """The classes in the order in which they became known; `count` is how many there are in all."""

    model_version: int
    count: int
    classes: list[KnownClass]


class VersionSummary(BaseModel):
    """A version."""

    model_config = ConfigDict(from_attributes=True)
    version: int
    parent: int | None
    created_at: Time
    first_seq: int
    last_seq: int
    applied_seq: int
    metrics: dict[str, Any]
    sha256: str
    reason: str
    superseded: Annotated[int | None, Field(description="The version that took the served line elsewhere.")]


# A pair as a list: what FastAPI makes of a tuple is no schema of OpenAPI 3.1.
Span = Annotated[list[int], Field(min_length=2, max_length=2)]


class VersionDetails(VersionSummary):
    """A version with all that replay needs of it."""

    updates: Annotated[int, Field(description="Updates since the initial weights: random choices are keyed by it.")]
    backlog: Annotated[list[Span], Field(description="What a rollback has it learn again, first to last seq.")]
    act: Annotated[int | None, Field(description="The sequence number of the admin's act that it carries out.")]
    steps: list[list[list[int]]]
    weights: Annotated[dict[int, float], Field(description="The factors that the gate set on the weights of items.")]
    held: Annotated[list[int], Field(description="What went to the holdout.")]
    quarantined: dict[int, str]
    gate: Annotated[dict[str, Any] | None, Field(description="What the gate decided, and on what grounds.")]
    by_class: dict[str, Any] | None
    environment: dict[str, Any]
    stored: bool


class VersionPage(BaseModel):
    """Versions, newest first."""

    versions: list[VersionSummary]


class RollbackRequest(BaseModel):
    """The version to go back to. What came after it is skipped, or learned again with `reapply`."""

    model_config = STRICT
    to: VersionNumber
    reapply: bool = False


class ReleaseRequest(BaseModel):
    """The version whose quarantined feedback is to be learned after all."""

    model_config = STRICT
    version: VersionNumber


class ForgetRequest(BaseModel):
    """The feedback to unlearn and erase: by sequence numbers, by keys, or all that a source has brought so far."""

    model_config = STRICT
    seqs: Annotated[list[Annotated[int, Field(gt=0, lt=2**63)]], Field(min_length=1, max_length=MOST_FORGOTTEN)] | None = None
    keys: Annotated[list[Name], Field(min_length=1, max_length=MOST_FORGOTTEN)] | None = None
    source: Name | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if sum(each is not None for each in (self.seqs, self.keys, self.source)) != 1:
            raise ValueError("give seqs, keys or source")
        return self


class ActAccepted(BaseModel):
    """An act as it stands in the log. `model_version` is there once the version that carries it out is served."""

    seq: int
    model_version: int | None = None


class Compared(BaseModel):
    """A figure in both versions; None where no item tells it."""

    before: float | None
    after: float | None


class ComparedClass(Compared):
    """The same for the items of one class."""

    items: int


class Seen(BaseModel):
    """How many of the items each version had seen: it has probably learned from them."""

    before: int
    after: int


class Over(BaseModel):
    """The items that both versions answered: the latest feedback, no holdout."""

    items: int
    first_seq: int | None
    last_seq: int | None
    seen: Seen
    note: str = "over recent feedback, which a version may have learned from: `seen` says how many items came before it"


class Flip(BaseModel):
    """An item that the two versions answer differently; None where one could not answer yet."""

    seq: int
    label: Any
    before: Any
    after: Any


class Moved(BaseModel):
    """The norms of a module's parameters in both versions, and of their difference."""

    before: float
    after: float
    difference: float


class Comparison(BaseModel):
    """What learning changed between two versions."""

    before: int
    after: int
    over: Over
    metric: str
    metrics: dict[str, Compared]
    by_class: Annotated[dict[str, ComparedClass] | None, Field(description="`metric` per class.")]
    flipped: int
    flips: Annotated[list[Flip], Field(description="The newest of them.")]
    modules: dict[str, Moved]


class ModelState(BaseModel):
    """The model that is served, and how far it is behind the log."""

    model_version: int
    labels: Annotated[list[str], Field(description=f"The first {MOST_LISTED} of them; GET /classes has all, and their number.")]
    log_seq: int
    applied_seq: int
    lag: int
    input: str
    task: str
    device: str
    metrics: dict[str, Any]
    by_class: dict[str, Any] | None
    started_at: Time


class Health(BaseModel):
    """Whether the process can do its work."""

    status: str


@dataclass(frozen=True, slots=True)
class Contract:
    """The requests and answers of one model."""

    predict: TypeAdapter[PredictRequest]
    feedback: TypeAdapter[FeedbackRequest]
    explain: TypeAdapter[ExplainRequest]
    predictions: type[BaseModel]

    @property
    def requests(self) -> Sequence[TypeAdapter[Any]]:
        """The bodies that the routes parse themselves."""
        return self.predict, self.feedback, self.explain


def contract_for(model: OnlineModel, limits: LimitSettings) -> Contract:
    """Make the contract of a model: its instances, labels and answers in the place of Any."""
    instance: Any = model.input.instance_type
    instances = Annotated[list[instance], Field(min_length=1, max_length=limits.instances, examples=[[model.input.example]])]
    item = _special(FeedbackItem, instance=(instance | None, None), label=(model.head.label_type, ...))
    items = Annotated[list[item], Field(min_length=1, max_length=limits.feedback)]  # type: ignore[valid-type]
    explained = {"instance": (instance | None, None), "label": (model.head.label_type | None, None)}
    prediction = create_model("Prediction", __base__=model.head.answer_type, id=(str, ...))
    return Contract(
        predict=TypeAdapter(_special(PredictRequest, instances=(instances, ...))),
        feedback=TypeAdapter(_special(FeedbackRequest, feedback=(items, ...))),
        explain=TypeAdapter(_special(ExplainRequest, **explained)),
        predictions=_special(Predictions, predictions=(list[prediction], ...)),  # type: ignore[valid-type]
    )


def _special(general: type[Any], **fields: Any) -> type[Any]:
    """Return the schema with some fields made special, under the same name."""
    made: type[Any] = create_model(general.__name__, __base__=general, __doc__=general.__doc__, **fields)
    return made
