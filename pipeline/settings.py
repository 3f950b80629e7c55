"""Settings: read once, frozen, from flags, environment, file and defaults.

Precedence, strongest first: arguments, environment (`SLUICE_KAFKA__GROUP`),
`.env`, the secrets folder, the TOML file (`SLUICE_CONFIG`, by default
`sluice.toml`), the default. No other module reads the environment.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from pipeline.errors import Misconfigured
from pipeline.resources import packaged, shipped

PREFIX = "SLUICE_"
_OWN_VARIABLES = frozenset({"SLUICE_CONFIG", "SLUICE_HOME", "SLUICE_DEBUG", "SLUICE_TRAINING_DATA"})

PositiveInt = Annotated[int, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Ratio = Annotated[float, Field(gt=0, le=1)]
Name = Annotated[str, Field(min_length=1, max_length=249)]

_SERVER = re.compile(r"(\[[0-9A-Fa-f:.]+(%\w+)?\]|[^\s:/@\[\]]+)(:(?P<port>[0-9]{1,5}))?")


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class KafkaSettings(_Section):
    """How to reach the broker, and as which consumer group."""

    bootstrap_servers: Name = Field(
        "127.0.0.1:9092", description="host:port; several with commas between them"
    )
    group: Name = "sluice-worker"
    instance_id: Name | None = Field(
        None, description="static membership (KIP-345): a quick restart does not rebalance"
    )
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    username: str | None = None
    password: SecretStr | None = None
    ca_file: Path | None = None
    session_timeout_s: Seconds = 15.0
    heartbeat_s: Seconds = 3.0
    rebalance_timeout_s: Seconds = 45.0
    request_timeout_s: Seconds = 20.0
    commit_interval_s: Seconds = 0.5
    start_from: Literal["earliest", "latest"] = "earliest"

    @field_validator("bootstrap_servers")
    @classmethod
    def _addresses(cls, servers: str) -> str:
        if not all(_is_server(each.strip()) for each in servers.split(",")):
            raise ValueError(
                "must be host:port with a port from 1 to 65535, several with commas between"
                " them, an IPv6 address in brackets"
            )
        return servers

    @model_validator(mode="after")
    def _consistent(self) -> KafkaSettings:
        if self.heartbeat_s * 3 > self.session_timeout_s:
            raise ValueError("session_timeout_s must be at least three times heartbeat_s")
        if self.session_timeout_s > self.request_timeout_s:
            raise ValueError("request_timeout_s must not be below session_timeout_s")
        if self.security_protocol.startswith("SASL") and not (self.username and self.password):
            raise ValueError(f"security_protocol {self.security_protocol} needs username, password")
        return self


def _is_server(text: str) -> bool:
    """Whether it is a host, which may stand in brackets, and a port, by default 9092."""
    found = _SERVER.fullmatch(text)
    return found is not None and 1 <= int(found["port"] or 9092) <= 65535


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number
        return False


class TopicSettings(_Section):
    """The seven topics, and how `sluice topics create` makes them."""

    prompts: Name = "moderation.prompts.v1"
    completions: Name = "moderation.completions.v1"
    verdicts: Name = "moderation.verdicts.v1"
    audit: Name = "moderation.audit.v1"
    dead_letters: Name = "moderation.dead-letters.v1"
    policies: Name = "moderation.policies.v1"
    chain_heads: Name = "moderation.chain-heads.v1"
    partitions: PositiveInt = 4
    replication_factor: PositiveInt = 1
    max_message_bytes: PositiveInt = 8 * 1024 * 1024


class RegistrySettings(_Section):
    """A Confluent-compatible schema registry; without a url, schemas/ids.json serves."""

    url: str | None = None
    username: str | None = None
    password: SecretStr | None = None
    timeout_s: Seconds = 5.0

    @field_validator("url")
    @classmethod
    def _address(cls, url: str | None) -> str | None:
        """No word of a refused url is said: it may hold a password."""
        if url and "@" in url:
            raise ValueError("holds credentials; use registry.username and registry.password")
        if url and not _is_http(url):
            raise ValueError("must be http://host:port or https://host:port")
        return url


class TritonSettings(_Section):
    """How to reach the inference server over gRPC."""

    url: Name = "127.0.0.1:8001"
    timeout_s: Seconds = Field(10.0, description="deadline of one guard call")
    tls: bool = False
    ca_file: Path | None = None
    heal: bool = Field(True, description="load a guard again when its process has died")


class GuardSettings(_Section):
    """Which guards judge, and where their cards lie."""

    repository: Path = Field(default_factory=lambda: shipped("triton_models"))
    names: Annotated[tuple[Name, ...], Field(min_length=1)] = ("default",)
    first: Name | None = Field(
        None, description="a cheap guard that settles clear windows; the rest go on to `names`"
    )
    max_rows: Annotated[int, Field(gt=0, le=1024)] = 64
    max_tokens: PositiveInt = Field(
        1024, description="padded tokens in one call; less lets short texts pass"
    )
    quick_max_tokens: PositiveInt = Field(
        8192,
        description="the same while full calls are back within 20 ms, as from a GPU;"
        " with the value of max_tokens no call grows",
    )
    max_windows: PositiveInt = 128
    calls_in_flight: PositiveInt = 3
    cache_entries: Annotated[int, Field(ge=0, le=10_000_000)] = Field(
        10_000, description="contents whose scores a worker remembers; 0: every message is judged"
    )

    @property
    def served(self) -> tuple[str, ...]:
        """Every guard that Triton must serve."""
        return (*self.names, *((self.first,) if self.first else ()))


class PolicySettings(_Section):
    """The policy file."""

    file: Path = Field(default_factory=lambda: packaged("policies", "default.toml"))
    follow: bool = Field(
        True, description="a policy activated in the policies topic takes the file's place"
    )


class AuditSettings(_Section):
    """The audit log's hash chains and the keys of its encrypted content."""

    checkpoint_s: Seconds = Field(
        5.0,
        description="how often chain heads are written down; what a killed worker audited since"
        " then can be cut off without a trace",
    )
    signing_key_file: Path | None = Field(
        None, description="Ed25519 private key in PEM that signs chain heads"
    )
    keys_folder: Path | None = Field(
        None, description="where the tenants' content keys lie; needed for retention 'encrypted'"
    )


class WorkerSettings(_Section):
    """Batching, bounds and the health server of a worker."""

    id: Name = Field(default_factory=socket.gethostname)
    batch_messages: PositiveInt = 64
    quick_batch_messages: PositiveInt = Field(
        256,
        description="the same while guards answer so quickly that their calls grow, see"
        " guards.quick_max_tokens; with the value of batch_messages no batch does",
    )
    batch_bytes: PositiveInt = 1024 * 1024
    messages_in_flight: PositiveInt = Field(
        1024, description="messages taken and not yet ended; large ones as many again"
    )
    bytes_in_flight: PositiveInt = 8 * 1024 * 1024
    buffer_messages: PositiveInt = 256
    buffer_bytes: PositiveInt = 4 * 1024 * 1024
    large_bytes: PositiveInt = Field(
        2048, description="messages of this size and more are judged in batches of their own"
    )
    drain_s: Seconds = 10.0
    poison_attempts: PositiveInt = Field(
        5, description="failures while the guard answers others, before a message is tried alone"
    )
    http_host: Name = "127.0.0.1"
    http_port: Annotated[int, Field(ge=0, le=65535)] = 8088


class LimitSettings(_Section):
    """What a message may be, and how many dead letters are too many."""

    max_text_bytes: PositiveInt = 1024 * 1024
    max_future_s: Seconds = 24 * 3600.0
    dead_letter_window: PositiveInt = 1000
    dead_letter_count: PositiveInt = 100
    dead_letter_ratio: Ratio = 0.5
    dead_letter_memory_s: Annotated[float, Field(ge=0)] = Field(
        600.0, description="a worker that starts counts the last so many seconds; 0: it does not"
    )


class TelemetrySettings(_Section):
    """Logs."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["console", "json"] = "console"


class Settings(BaseSettings):
    """Every setting, by section."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        env_file=".env",
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )
    toml_file: ClassVar[Path | None] = None

    kafka: KafkaSettings = Field(default_factory=KafkaSettings)
    topics: TopicSettings = Field(default_factory=TopicSettings)
    registry: RegistrySettings = Field(default_factory=RegistrySettings)
    triton: TritonSettings = Field(default_factory=TritonSettings)
    guards: GuardSettings = Field(default_factory=GuardSettings)
    policy: PolicySettings = Field(default_factory=PolicySettings)
    audit: AuditSettings = Field(default_factory=AuditSettings)
    worker: WorkerSettings = Field(default_factory=WorkerSettings)
    limits: LimitSettings = Field(default_factory=LimitSettings)
    telemetry: TelemetrySettings = Field(default_factory=TelemetrySettings)

    @model_validator(mode="after")
    def _drain_before_eviction(self) -> Settings:
        if self.worker.drain_s + 5 > self.kafka.rebalance_timeout_s:
            raise ValueError("kafka.rebalance_timeout_s must exceed worker.drain_s by 5 s")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, environment, `.env`, secrets, file."""
        toml = TomlConfigSettingsSource(settings_cls, toml_file=cls.toml_file)
        return init_settings, env_settings, dotenv_settings, file_secret_settings, toml


def load(overrides: Mapping[str, Any] | None = None) -> Settings:
    """The settings in force; raises Misconfigured naming key, problem and remedy."""
    _refuse_unknown_variables(os.environ)
    source = _with_file(config_file(os.environ))
    try:
        return source(**(overrides or {}))
    except ValidationError as error:
        raise Misconfigured(
            _problem(error), remedy="`sluice config init PATH` writes a file with every key"
        ) from None
    except (SettingsError, ValueError) as error:
        raise Misconfigured(
            f"the settings cannot be read: {error}", remedy="Correct the file or the variable"
        ) from None


def config_file(environ: Mapping[str, str]) -> Path | None:
    """The TOML file to read, or None; raises Misconfigured if a named one is missing."""
    named = environ.get("SLUICE_CONFIG")
    path = Path(named or "sluice.toml")
    if path.is_file():
        return path
    if named:
        raise Misconfigured(f"there is no file {named}", remedy="Correct SLUICE_CONFIG")
    return None


def origins(settings: Settings, overrides: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
    """Every key as `section.name`, its value and where that came from; secrets masked."""
    file = config_file(os.environ)
    source = _with_file(file)
    readers: list[tuple[str, dict[str, Any]]] = [
        ("argument", dict(overrides)),
        ("environment", EnvSettingsSource(source)()),
        (".env", DotEnvSettingsSource(source)()),
        (str(file), TomlConfigSettingsSource(source, toml_file=file)()),
    ]
    for section, fields in settings:
        for name, value in fields:
            found = (label for label, given in readers if name in (given.get(section) or {}))
            yield f"{section}.{name}", value, next(found, "default")


def home() -> Path:
    """Where the embedded stack keeps its files: `SLUICE_HOME`, or `.sluice` here.

    Made if it is not there; raises Misconfigured when it cannot be.
    """
    path = Path(os.environ.get("SLUICE_HOME") or ".sluice").resolve()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Misconfigured(
            f"the folder {path} cannot be made ({error.strerror})",
            remedy="Set SLUICE_HOME to a folder that this user may write",
        ) from error
    return path


def _with_file(path: Path | None) -> type[Settings]:
    return type("Settings", (Settings,), {"toml_file": path, "__module__": __name__})


def _refuse_unknown_variables(environ: Mapping[str, str]) -> None:
    """A misspelt section would be ignored in silence; name it instead."""
    for variable in environ:
        if not variable.startswith(PREFIX) or variable in _OWN_VARIABLES:
            continue
        if variable.removeprefix(PREFIX).partition("__")[0].lower() not in Settings.model_fields:
            raise Misconfigured(
                f"the environment variable {variable} names no section",
                remedy=f"Use {PREFIX}<SECTION>__<KEY> with a section of: "
                + ", ".join(Settings.model_fields),
            )


def _problem(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "settings"
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"setting {where}: {first['msg'].removeprefix('Value error, ')}{more}"
