"""Settings: everlearn.toml < environment (EVERLEARN_SECTION_NAME) < flags; read once, then frozen."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_origin

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError as SettingsSourceError,
    TomlConfigSettingsSource,
)

PREFIX = "EVERLEARN_"
CONFIG_VARIABLE = "EVERLEARN_CONFIG"
URL_VARIABLE, KEY_VARIABLE = "EVERLEARN_URL", "EVERLEARN_KEY"
"""Where clients on the command line look for a service, and what they call it with."""
DEFAULT_CONFIG = Path("everlearn.toml")


class SettingsError(Exception):
    """A setting does not exist or has a value that is not allowed."""


class Section(BaseModel):
    """A section of everlearn.toml."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class LearningSettings(Section):
    """How updates are made. These shape every version, so the data directory records them and they stay."""

    seed: Annotated[int, Field(ge=0, lt=2**63, description="Seed of the initial weights and of every choice.")] = 0
    update_items: Annotated[PositiveInt, Field(description="Feedback that one update takes at most.")] = 256
    step_items: Annotated[
        PositiveInt, Field(description="New items in one optimizer step; one on fewer is shorter in proportion.")
    ] = 4
    warm_up: Annotated[
        NonNegativeInt,
        Field(description="Items at the start and after drift that get a whole step each: what is young learns fast."),
    ] = 1000
    rehearse: Annotated[NonNegativeInt, Field(description="Earlier items that are rehearsed for each new one.")] = 4
    rehearsal: Annotated[
        Literal["mixed", "recent", "reservoir", "balanced"],
        Field(description='"recent", "reservoir" (of all), "balanced" (by class), or "mixed": half recent, half balanced.'),
    ] = "mixed"
    memory: Annotated[PositiveInt, Field(description="Items in the long memory of rehearsal.")] = 2000
    recent_age: Annotated[PositiveInt, Field(description="Mean age, in items, of what is rehearsed as recent.")] = 500
    average: Annotated[
        float,
        Field(ge=0, lt=1, description="Decay of the running mean of the weights, which is served; 0 serves the last step's."),
    ] = 0.97
    drift: Annotated[
        Literal["adwin", "page_hinkley", "none"],
        Field(description="Detector of drift in the loss: a new warm-up, and no memory."),
    ] = "adwin"
    window: Annotated[PositiveInt, Field(description="Items in the sliding window of the metrics.")] = 1000
    fading: Annotated[float, Field(gt=0, le=1, description="Factor per item by which the faded metrics forget.")] = 0.999
    optimizer: Annotated[dict[str, Any], Field(description='"sgd", "adam" or "adamw" by name, with its options.')] = {
        "name": "adam",
        "lr": 0.001,
    }


Device = Annotated[str, Field(pattern=r"^(cpu|cuda(:\d+)?)$", description='"cpu", "cuda" or "cuda:1".')]


class LearnerSettings(Section):
    """Where the learner computes. Replay is bit-identical for the same device and number of threads."""

    device: Device = "cpu"
    threads: Annotated[PositiveInt, Field(description="CPU threads of one update.")] = 1
    standby: Annotated[
        bool,
        Field(
            description="Whether to be a replica: to serve where another service of this machine learns on the same directory,"
            " and to learn once that ends. Else two services on one directory are taken for a mistake."
        ),
    ] = False
    watchdog_seconds: Annotated[
        PositiveFloat,
        Field(
            description="A learner that has not gone on for this long, not even by an optimizer step, hangs: it is killed, and"
            " what it was at is suspected."
        ),
    ] = 600.0


class GateSettings(Section):
    """What may become a version. Decisions are recorded with the versions, so these may change at any time."""

    holdout: Annotated[float, Field(ge=0, le=0.5, description="Share of feedback that is never trained on; 0: none.")] = 0.05
    holdout_items: Annotated[PositiveInt, Field(description="Held-out items of one source that are kept, the newest.")] = 200
    margin: Annotated[
        float, Field(gt=0, description="Loss (0 to 1) by which an update may be worse on the holdout, beyond noise.")
    ] = 0.05
    growth: Annotated[float, Field(gt=1, description="Factor by which an update may let the norm of the weights grow.")] = 10.0
    source_share: Annotated[
        float,
        Field(ge=0, description="What one of three or more sources weighs, at most, in multiples of an equal share; 0: all."),
    ] = 2.0
    doubt: Annotated[
        bool, Field(description="Whether labels weigh less of a source that is wrong far more often than the others are.")
    ] = True
    effort: Annotated[
        float, Field(ge=0, description="Time that judging takes, as a part of the updates'; 0: nothing is judged.")
    ] = 0.25


class ServingSettings(Section):
    """How predictions are made."""

    device: Device = "cpu"
    threads: Annotated[PositiveInt, Field(description="CPU threads of one forward pass.")] = 1
    precision: Annotated[
        Literal["float32", "bfloat16"],
        Field(description="What forward passes are computed in. bfloat16 is for GPUs that have it, and was measured on none."),
    ] = "float32"
    compile: Annotated[
        bool,
        Field(
            description="Whether the encoder is compiled by torch.compile, at the start, which takes a C++ compiler and up to"
            " minutes. Answers may differ in their last bits. Meant for GPUs too, and was measured on none."
        ),
    ] = False
    batch: Annotated[PositiveInt, Field(description="Instances in one batch at most.")] = 64
    queue: Annotated[PositiveInt, Field(description="Instances that may wait; more is answered 503.")] = 1024
    deadline_seconds: Annotated[
        PositiveFloat, Field(description="A prediction that has not begun by then is answered 503.")
    ] = 10.0
    decoders: Annotated[PositiveInt, Field(description="Threads that decode pictures.")] = 2
    name: Annotated[
        str,
        Field(
            pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$",
            description="What the Open Inference Protocol, and the metrics of Triton and KServe, call the model.",
        ),
    ] = "everlearn"


class ExplanationSettings(Section):
    """How much work explanations and comparisons may be. They have one thread, and a copy of the model, of their own."""

    evaluations: Annotated[
        int, Field(ge=4, description="Variants of an instance that one explanation looks at, at most: more is exacter.")
    ] = 512
    batch: Annotated[
        PositiveInt, Field(description="Variants in one forward pass: few, so that predictions have their turn between.")
    ] = 32
    queue: Annotated[NonNegativeInt, Field(description="Explanations and comparisons that may wait; more is answered 503.")] = 8


class StoreSettings(Section):
    """Where the data is and how much of it is kept."""

    data: Annotated[Path, Field(description="The data directory: log, journal, checkpoints.")] = Path("everlearn-data")
    checkpoints: Annotated[
        int,
        Field(
            ge=2,
            description="Newest versions whose checkpoints are kept, all of them; of older ones, one for each doubling of the"
            " age: version v of age a while v is a multiple of the largest power of two up to a. Where the learner is faster"
            " than the disk, most versions never have one. Replay rebuilds the others.",
        ),
    ] = 100
    journal_seconds: Annotated[PositiveFloat, Field(description="How long a prediction id can be labelled.")] = 86_400.0
    journal_bytes: Annotated[PositiveInt, Field(description="Size of the prediction journal; the oldest go first.")] = 2**30


class ServerSettings(Section):
    """Where the service listens."""

    host: Annotated[str, Field(description="Address to listen on.")] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535, description="Port to listen on; 0 takes a free one.")] = 8000
    workers: Annotated[int, Field(ge=1, le=64, description="API processes; the learner is one more.")] = 1
    drain_seconds: Annotated[
        NonNegativeFloat,
        Field(description="Time after SIGTERM in which all is served, but /readyz says no: gateways look elsewhere meanwhile."),
    ] = 0.0
    grace_seconds: Annotated[PositiveFloat, Field(description="Time to finish after that.")] = 30.0
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Field(description="What is logged to standard error.")
    ] = "info"
    log_format: Annotated[
        Literal["console", "json"], Field(description='Lines for people ("console"), or an object a line ("json").')
    ] = "console"
    access_log: Annotated[
        Literal["none", "errors", "all"],
        Field(description='Which requests get a line: "errors" are those answered 4xx and 5xx. Never with what they brought.'),
    ] = "errors"
    otlp_endpoint: Annotated[
        str, Field(description="Where traces go, by OTLP over HTTP; empty: where OTEL_EXPORTER_OTLP_ENDPOINT says, or nowhere.")
    ] = ""

    @property
    def url(self) -> str:
        """Where this machine reaches the service."""
        here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104  # it is asked, not bound
        return f"http://[{here}]:{self.port}" if ":" in here else f"http://{here}:{self.port}"


class AccessSettings(Section):
    """Who may call, and who may teach. Files are named from the data directory, and read again when they change."""

    mode: Annotated[
        Literal["none", "keys", "jwt"],
        Field(description='"keys": API keys, see `everlearn keys`. "jwt": signed tokens. "none": everybody, see anonymous.'),
    ] = "none"
    anonymous: Annotated[
        bool, Field(description='Whether mode "none" may listen where others than this machine\'s users can reach it.')
    ] = False
    keys: Annotated[Path, Field(description='Hashes of the keys, for mode "keys".')] = Path("keys.json")
    jwks: Annotated[Path, Field(description='Public keys that sign tokens (a JWK set), for mode "jwt".')] = Path("jwks.json")
    issuer: Annotated[str, Field(description="What a token must say in `iss`.")] = ""
    audience: Annotated[str, Field(description="What a token must say in `aud`, alone or among others.")] = ""


class LimitSettings(Section):
    """What one client may ask for."""

    body_bytes: Annotated[PositiveInt, Field(description="Size of a request body; more is answered 413.")] = 16 * 2**20
    instances: Annotated[PositiveInt, Field(description="Instances in one /predict request.")] = 256
    feedback: Annotated[PositiveInt, Field(description="Items in one /feedback request.")] = 1000
    backlog: Annotated[PositiveInt, Field(description="Feedback that may wait for the learner; more is answered 429.")] = (
        100_000
    )
    feedback_rate: Annotated[
        NonNegativeFloat,
        Field(description="Feedback items a second that one source may send to one worker; more is answered 429. 0: no limit."),
    ] = 0.0
    feedback_burst: Annotated[
        PositiveInt, Field(description="Feedback items that a source may send at once, after a rest.")
    ] = 1000
    head_seconds: Annotated[PositiveFloat, Field(description="Time for a request's head to arrive; then 408.")] = 10.0
    body_seconds: Annotated[PositiveFloat, Field(description="Time for a request's body to arrive; then 408.")] = 60.0


class TimeoutSettings(Section):
    """What a prediction is taken to be labelled with when no label has come for it in time: a click that never comes."""

    seconds: Annotated[
        NonNegativeFloat, Field(description="Age at which a prediction without a label gets this one; 0: never.")
    ] = 0.0
    label: Annotated[Any, Field(description="The label, as /feedback takes it. A real one that comes later replaces it.")] = ""


class Settings(Section):
    """All settings of a service."""

    model: Annotated[dict[str, Any], Field(description="Input, encoder and head; or a class of your own.")]
    learning: LearningSettings = LearningSettings()
    learner: LearnerSettings = LearnerSettings()
    gate: GateSettings = GateSettings()
    serving: ServingSettings = ServingSettings()
    explanations: ExplanationSettings = ExplanationSettings()
    timeout: TimeoutSettings = TimeoutSettings()
    store: StoreSettings = StoreSettings()
    server: ServerSettings = ServerSettings()
    access: AccessSettings = AccessSettings()
    limits: LimitSettings = LimitSettings()


class _Sources(Settings, BaseSettings):
    """The same fields, gathered from everywhere."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="_", env_nested_max_split=1, extra="forbid", frozen=True
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags win over the environment, the environment over the file."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)


def load_settings(config: Path | None = None, flags: Mapping[str, Mapping[str, Any]] | None = None) -> Settings:
    """Read the settings. `config` is a file that must exist; without it ./everlearn.toml is read if it is there.

    Raises SettingsError with one line that names the field and what is allowed.
    """
    _check_variables(os.environ)
    path = config or DEFAULT_CONFIG
    if config and not config.is_file():
        raise SettingsError(f"there is no configuration file {config}")
    sources = type("_Sources", (_Sources,), {"model_config": {**_Sources.model_config, "toml_file": path}})
    try:
        gathered = sources(**{section: dict(values) for section, values in (flags or {}).items() if values})
    except tomllib.TOMLDecodeError as exc:
        raise SettingsError(f"{path} is not valid TOML: {exc}") from exc
    except UnicodeDecodeError as exc:
        raise SettingsError(f"{path} is not in UTF-8: {exc}") from exc
    except OSError as exc:
        raise SettingsError(f"{path} can't be read: {exc.strerror}") from exc
    except SettingsSourceError as exc:
        raise SettingsError(str(exc)) from exc
    except ValidationError as exc:
        raise SettingsError(_first_line(exc)) from exc
    return Settings.model_validate(gathered.model_dump())


def service_url(config: Path | None = None) -> str:
    """Return where the service of a configuration, or of the environment, listens. Raises SettingsError."""
    anything: Mapping[str, Mapping[str, Any]] = {"model": {"head": {}}}  # who only calls need not have the model
    server = load_settings(config, anything).server
    if not server.port:
        raise SettingsError("server.port: 0 takes any free port; name the one that `everlearn serve` said, with --url")
    return server.url


def _check_variables(environment: Mapping[str, str]) -> None:
    """Refuse EVERLEARN_... variables of no section: a slip of the pen must not be a setting that does nothing."""
    sections = list(Settings.model_fields)
    for name, value in environment.items():
        if name.startswith(PREFIX) and name not in {CONFIG_VARIABLE, URL_VARIABLE, KEY_VARIABLE}:
            section, _, setting = name.removeprefix(PREFIX).lower().partition("_")
            if section not in sections:
                raise SettingsError(f"{name}: no such section; allowed: {', '.join(sections)}")
            if _is_table(section, setting) and not _is_json(value):
                raise SettingsError(f"{name}: not valid JSON")


def _is_table(section: str, setting: str) -> bool:
    """Return whether a variable stands for a whole section, or for a setting that is a table: these come as JSON."""
    annotation = Settings.model_fields[section].annotation
    fields = annotation.model_fields if isinstance(annotation, type) and issubclass(annotation, BaseModel) else {}
    return not setting or (setting in fields and get_origin(fields[setting].annotation) is dict)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _first_line(exc: ValidationError) -> str:
    """Say in one line which field is wrong and what is allowed."""
    # A name that does not exist first: it may be the reason why another one is missing.
    error = min(exc.errors(), key=lambda error: error["type"] != "extra_forbidden")
    field = ".".join(map(str, error["loc"]))
    if error["type"] == "missing" and field == "model":
        return "model: missing; write a configuration with `everlearn init --template digits`, or name one with --config"
    if error["type"] == "extra_forbidden":
        owner = Settings.model_fields.get(str(error["loc"][0]))
        section = owner.annotation if owner and len(error["loc"]) > 1 else Settings
        allowed = section.model_fields if isinstance(section, type) and issubclass(section, BaseModel) else {}
        return f"{field}: no such setting; allowed: {', '.join(sorted(allowed))}"
    return f"{field}: {error['msg']} (got {error['input']!r})"
