"""The settings: one TOML file plus environment variables, checked once, then frozen.

A value may be overridden by ``DICOM_NODE__SECTION__KEY`` in the environment (for passwords in the database URL, say).
Relative paths count from the folder of the settings file. Every problem names the file and the key.
"""

from __future__ import annotations

import ipaddress
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Annotated, Any, Literal, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    SecretStr,
    Tag,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from dicom_node.domain.completeness import PATIENCE, Source, Sources
from dicom_node.domain.encoding import Encoding, refuse_encodings
from dicom_node.domain.model import OutputKind
from dicom_node.domain.people import Role
from dicom_node.domain.proof import Verify
from dicom_node.domain.uids import AETitle, is_uid
from dicom_node.errors import ConfigurationError

ENVIRONMENT_PREFIX = "DICOM_NODE__"


def _sop_class(uid: str) -> str:
    if not is_uid(uid):
        raise ValueError(f"{uid!r} is no UID")
    return uid


Port = Annotated[int, Field(ge=1, le=65535)]
AE = Annotated[str, AfterValidator(AETitle)]
ClassUID = Annotated[str, AfterValidator(_sop_class)]
Seconds = Annotated[float, Field(gt=0)]
Days = Annotated[float, Field(ge=0)]
S = TypeVar("S", bound=BaseModel)


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach an address that we listen on."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Node(_Section):
    """Who we are."""

    name: str = "dicom-node"
    ae_title: AE = AETitle("AINODE")
    institution: str = ""
    serial: str = "1"


class Database(_Section):
    """Where the rows live."""

    url: str = "sqlite:///node.db"

    @field_validator("url")
    @classmethod
    def _known(cls, url: str) -> str:
        try:
            backend = make_url(url).get_backend_name()
        except ArgumentError:
            backend = "this"
        if backend not in ("sqlite", "postgresql"):
            raise ValueError(f"use sqlite:///PATH or postgresql://USER:PASSWORD@HOST/DATABASE, not {backend}")
        return url


class Spool(_Section):
    """Where the files live."""

    path: Path = Path("spool")
    reserve_mib: int = Field(512, ge=0)


class DimseTls(_Section):
    """How we speak TLS with a peer that we call (PS3.15 B.12)."""

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    server_name: str = ""
    minimum: Literal["1.2", "1.3"] = "1.2"
    accept_any_certificate: bool = False

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.key is not None and self.certificate is None:
            raise ValueError("key needs the certificate that belongs to it")
        if self.accept_any_certificate and (self.ca or self.server_name):
            raise ValueError("accept_any_certificate looks at nothing: leave out ca and server_name")
        return self


class Peer(_Section):
    """A calling AE that may send to us: from where, and what it has to show."""

    ae_title: AE
    address: str = ""
    certificate: str = ""
    user: str = ""
    passcode: SecretStr = SecretStr("")
    commitment: bool = False
    report_on: Literal["any", "same", "new"] = "any"
    host: str = ""
    port: Port | None = None
    tls: DimseTls | None = None

    @model_validator(mode="after")
    def _reportable(self) -> Self:
        if self.commitment and self.report_on != "same" and not (self.host and self.port):
            raise ValueError('commitment needs host and port, where this peer takes our reports, or report_on = "same"')
        return self

    @field_validator("address")
    @classmethod
    def _network(cls, address: str) -> str:
        if address:
            ipaddress.ip_network(address, strict=False)
        return address

    @model_validator(mode="after")
    def _somebody(self) -> Self:
        if self.passcode.get_secret_value() and not self.user:
            raise ValueError("passcode needs the user that it belongs to")
        return self


class KeyPair(_Section):
    """A certificate of ours with its chain, and its key; both in PEM, in one file or in two."""

    certificate: Path
    key: Path | None = None


class ReceiveTls(_Section):
    """The DICOM listener over TLS (PS3.15 B.12)."""

    port: Port = 2762
    certificates: Annotated[tuple[KeyPair, ...], Field(min_length=1)]
    client_certificates: Literal["required", "optional", "none"] = "required"
    ca: Path | None = None
    crl: Path | None = None
    minimum: Literal["1.2", "1.3"] = "1.2"

    @model_validator(mode="after")
    def _can_judge(self) -> Self:
        if self.client_certificates != "none" and self.ca is None:
            raise ValueError(
                'give ca, the certificates of those who may vouch for peers, or say client_certificates = "none"'
            )
        if self.client_certificates == "none" and self.crl is not None:
            raise ValueError("crl without client certificates: there is nothing to revoke")
        return self


class WatchedFolder(_Section):
    """A folder that others put DICOM files into."""

    path: Path
    afterwards: Literal["keep", "delete", "move"] = "keep"
    calling_ae: AE = AETitle("FOLDER")
    called_ae: AE | None = None
    settle_s: Seconds = 10.0
    every_s: Seconds = 5.0


class Receive(_Section):
    """The DICOM listener, and folders that are watched."""

    address: str = "0.0.0.0"
    port: Port = 11112
    processes: int = Field(2, ge=1, le=64)
    max_associations: int = Field(64, ge=1)
    max_associations_per_peer: int = Field(48, ge=1)
    idle_timeout_s: Seconds = 60.0
    artim_timeout_s: Seconds = 30.0
    answer_timeout_s: Seconds = 120.0
    called_ae: tuple[AE, ...] = ()
    sop_classes: tuple[ClassUID, ...] = ()
    accept_any_peer: bool = False
    peers: tuple[Peer, ...] = ()
    folders: tuple[WatchedFolder, ...] = ()
    clear_text: bool | None = None
    passcodes_in_clear: bool = False
    tls: ReceiveTls | None = None

    @model_validator(mode="after")
    def _guarded(self) -> Self:
        if self.tls is None and self.clear_text is False:
            raise ValueError("clear_text = false without [receive.tls]: nothing would listen")
        if self.tls is not None and self.has_clear_text and self.tls.port == self.port:
            raise ValueError("tls.port: two listeners cannot have one port")
        shows = self.tls is not None and self.tls.client_certificates != "none"
        if not shows and any(peer.certificate for peer in self.peers):
            raise ValueError("peers name certificates, but no [receive.tls] asks for them")
        if self.tls is None and not self.passcodes_in_clear and any(peer.user for peer in self.peers):
            raise ValueError(
                "passcodes would cross the network in clear text: give [receive.tls], or say passcodes_in_clear = true"
            )
        return self

    @property
    def has_clear_text(self) -> bool:
        """Whether there is a listener without TLS: beside one with it only if somebody says so."""
        return self.tls is None if self.clear_text is None else self.clear_text

    @property
    def ports(self) -> tuple[int, ...]:
        """Every port that is listened on."""
        return (*((self.port,) if self.has_clear_text else ()), *((self.tls.port,) if self.tls else ()))


class Retrieve(_Section):
    """Studies asked back from archives."""

    enabled: bool = False
    max_attempts: int = Field(3, ge=1)
    retry_s: Seconds = 300.0
    timeout_s: Seconds = 600.0


class AssembleSource(_Section):
    """When series that some callers send count as complete. What is not said is as for all others."""

    calling_ae: tuple[str, ...] = ()
    called_ae: tuple[str, ...] = ()
    accounts: tuple[str, ...] = ()
    quiet_s: Seconds | None = None
    patience_s: Seconds | None = None
    ask: str | None = None
    ask_after_s: Seconds | None = None
    incomplete: Literal["refuse", "run"] | None = None

    @model_validator(mode="after")
    def _of_somebody(self) -> Self:
        if not (self.calling_ae or self.called_ae or self.accounts):
            raise ValueError("say whom it is for: calling_ae, called_ae or accounts")
        return self


class Assemble(_Section):
    """When a series counts as complete."""

    quiet_s: Seconds = 30.0
    patience_s: Seconds | None = None
    ask: str = ""
    ask_after_s: Seconds = 5.0
    incomplete: Literal["refuse", "run"] = "refuse"
    sweep_s: Seconds = 1.0
    sources: dict[Annotated[str, Field(max_length=64)], AssembleSource] = {}

    def waiting(self) -> Sources:
        """Say how long to wait for the rest of a series, by who sends it."""
        named = tuple(self._source(name, section) for name, section in self.sources.items())
        return Sources(self._source("", AssembleSource.model_construct()), named)

    def _source(self, name: str, section: AssembleSource) -> Source:
        quiet_s = section.quiet_s or self.quiet_s
        usual_s = PATIENCE * quiet_s if section.quiet_s else self.patience_s or PATIENCE * quiet_s
        return Source(
            name,
            calling_ae=section.calling_ae,
            called_ae=section.called_ae,
            accounts=section.accounts,
            quiet_s=quiet_s,
            patience_s=max(quiet_s, section.patience_s or usual_s),
            ask=self.ask if section.ask is None else section.ask,
            ask_after_s=section.ask_after_s or self.ask_after_s,
            runs_incomplete=(section.incomplete or self.incomplete) == "run",
        )


class Work(_Section):
    """Inference."""

    workers: int = Field(1, ge=1, le=64)
    device: str = "auto"
    memory_mib: int | None = Field(None, ge=256)
    warm_mib: int | None = Field(None, ge=256)
    windows: Literal["bundle", "auto"] = "bundle"
    confine: Literal["auto", "always", "never"] = "auto"
    account: str = ""
    max_attempts: int = Field(3, ge=1, le=20)
    retry_first_s: Seconds = 10.0
    retry_longest_s: Seconds = 600.0


class Deliver(_Section):
    """Sending results."""

    retry_first_s: Seconds = 15.0
    retry_longest_s: Seconds = 3600.0
    give_up_after_s: Seconds = 7 * 24 * 3600.0
    per_destination: int = Field(1, ge=1, le=8)
    verify_sweep_s: Seconds = 2.0


class Engine(_Section):
    """The job engine and the liveness of its workers."""

    poll_s: Seconds = 0.2
    beat_s: Seconds = 2.0
    dead_after_s: Seconds = Field(30.0, validate_default=True)

    @field_validator("dead_after_s")
    @classmethod
    def _several_beats(cls, dead_after_s: float, info: ValidationInfo) -> float:
        if dead_after_s < 3 * info.data.get("beat_s", 0.0):
            raise ValueError("a process must not count as dead before it has missed three beats (engine.beat_s)")
        return dead_after_s


class Retain(_Section):
    """How long what is kept, in days; 0 is for ever."""

    images_days: Days = 30.0
    unmatched_days: Days = 7.0
    failed_days: Days = 90.0
    results_days: Days = 90.0
    rows_days: Days = 730.0
    retrievals_days: Days = 90.0
    engine_days: Days = 7.0
    free_mib: int = Field(4096, ge=0)
    every_s: Seconds = 600.0


class Audit(_Section):
    """The audit trail: its hash chain, and where else it is sent."""

    chain_every_s: Seconds = 5.0
    syslog: str = ""
    syslog_ca: Path | None = None
    syslog_certificate: Path | None = None

    @field_validator("syslog")
    @classmethod
    def _reachable(cls, url: str) -> str:
        if url and not _names_server(url, ("tls", "tcp", "udp")):
            raise ValueError("use tls://HOST:6514, tcp://HOST:PORT or udp://HOST:514")
        return url


class Trace(_Section):
    """Where traces of what was done are sent: an OpenTelemetry collector, over OTLP/HTTP."""

    endpoint: str = ""
    headers: tuple[str, ...] = ()
    ca: Path | None = None
    timeout_s: Seconds = 10.0
    every_s: Seconds = 5.0

    @field_validator("endpoint")
    @classmethod
    def _reachable(cls, url: str) -> str:
        if url and not _is_web_address(url):
            raise ValueError("use https://HOST:4318/v1/traces")
        return url

    @field_validator("headers")
    @classmethod
    def _named(cls, headers: tuple[str, ...]) -> tuple[str, ...]:
        if not all(name.strip() and colon for name, colon, _ in (header.partition(":") for header in headers)):
            raise ValueError('use "NAME: VALUE"')
        return headers


class NotifyChannel(_Section):
    """A way to tell somebody: a webhook, or e-mail through a mail server."""

    kind: Literal["webhook", "mail"]
    url: str = ""
    secret: str = ""
    host: str = ""
    port: Port | None = None
    tls: Literal["starttls", "tls", "none"] = "starttls"
    user: str = ""
    password: str = ""
    sender: str = ""
    recipients: tuple[str, ...] = ()
    ca: Path | None = None
    timeout_s: Seconds = 10.0

    @model_validator(mode="after")
    def _complete(self) -> NotifyChannel:
        if self.kind == "webhook" and not _is_web_address(self.url):
            raise ValueError("a webhook needs url = https://HOST/PATH")
        if self.kind == "mail" and not (self.host and self.sender and self.recipients):
            raise ValueError("mail needs host, sender and recipients")
        return self


class NotifyRule(_Section):
    """Of what whom to tell."""

    on: Literal["finding", "failure", "not eligible", "delivery failed", "backlog"]
    to: Annotated[tuple[str, ...], Field(min_length=1)]
    rules: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    label: str = ""
    after_s: Seconds = 1800.0
    subject: str = ""
    text: str = ""
    patient: bool = False

    @model_validator(mode="after")
    def _report_is_there(self) -> Self:
        names = {*Template(self.subject).get_identifiers(), *Template(self.text).get_identifiers()}
        if "report" in Template(self.subject).get_identifiers():
            raise ValueError("subject: a report has many lines; put $report into text")
        if "report" in names and self.on not in ("finding", "delivery failed"):
            raise ValueError(f"text: there is no $report yet when somebody is told of: {self.on}")
        return self


class Notify(_Section):
    """Notifications."""

    channels: dict[str, NotifyChannel] = {}
    rules: dict[str, NotifyRule] = Field({}, validate_default=True)

    @field_validator("rules")
    @classmethod
    def _known_channels(cls, rules: dict[str, NotifyRule], info: ValidationInfo) -> dict[str, NotifyRule]:
        known = info.data.get("channels", {})
        for name, rule in rules.items():
            for channel in rule.to:
                if channel not in known:
                    raise ValueError(f"{name}: there is no [notify.channels.{channel}]")
        return rules


class Web(_Section):
    """The web pages, the REST API and DICOMweb."""

    enabled: bool = False
    address: str = "127.0.0.1"
    port: Port = 8080
    certificate: Path | None = None
    private_key: Path | None = None
    proxies: tuple[str, ...] = ()
    clear_text: bool = False
    hosts: tuple[str, ...] = ()
    idle_s: Seconds = 1800.0
    longest_s: Seconds = 43200.0
    store_request_mib: int = Field(4096, ge=1)
    store_instance_mib: int = Field(2048, ge=1, le=4096)
    store_instances: int = Field(5000, ge=1, le=50_000)
    metrics_open: bool = False
    ohif: Path = Path("ohif")

    @field_validator("proxies")
    @classmethod
    def _addresses(cls, proxies: tuple[str, ...]) -> tuple[str, ...]:
        for proxy in proxies:
            ipaddress.ip_network(proxy, strict=False)
        return proxies

    @model_validator(mode="after")
    def _guarded(self) -> Self:
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError("certificate and private_key go together")
        if not (self.certificate or self.proxies or self.clear_text or is_loopback(self.address)):
            raise ValueError(
                f"passwords would cross the network in clear text on {self.address}: give certificate and private_key, "
                "or the proxies that speak HTTPS for us, or say clear_text = true"
            )
        return self


class OidcRoles(_Section):
    """Which groups have which role; who is in several has the highest."""

    viewer: tuple[str, ...] = ()
    operator: tuple[str, ...] = ()
    admin: tuple[str, ...] = ()


class Oidc(_Section):
    """Sign-in with the hospital's accounts (OpenID Connect)."""

    issuer: str
    client_id: str
    client_secret: SecretStr = SecretStr("")
    client_secret_file: Path | None = None
    name: str = "hospital account"
    scopes: tuple[str, ...] = ("openid", "profile")
    name_claim: str = "preferred_username"
    groups_claim: str = "groups"
    roles: OidcRoles
    ca: Path | None = None

    @model_validator(mode="after")
    def _usable(self) -> Self:
        if not self.may_ask(self.issuer):
            raise ValueError("issuer: use the https address that the provider calls itself by")
        if self.client_secret.get_secret_value() and self.client_secret_file is not None:
            raise ValueError("give one of client_secret and client_secret_file")
        if "openid" not in self.scopes:
            raise ValueError('scopes: "openid" has to be among them')
        if not (self.roles.viewer or self.roles.operator or self.roles.admin):
            raise ValueError("roles: no group has a role, so that nobody could sign in")
        return self

    def may_ask(self, url: str) -> bool:
        """Whether a web address is one that secrets may go to: HTTPS, or this machine."""
        parts = urlsplit(url)
        return bool(parts.hostname) and (
            parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or ""))
        )

    def secret(self) -> str:
        """Read the client secret: from its file each time, since somebody may renew it. Empty for a public client."""
        if self.client_secret_file is not None:
            return self.client_secret_file.read_text(encoding="utf-8").strip()
        return self.client_secret.get_secret_value()

    def role_of(self, groups: set[str]) -> Role | None:
        """Find the highest role that one of some groups has."""
        highest_first = (Role.ADMIN, Role.OPERATOR, Role.VIEWER)
        return next((role for role in highest_first if groups & {*getattr(self.roles, role.value)}), None)


class DestinationSettings(_Section):
    """What destinations of every kind have."""

    timeout_s: Seconds = 30.0
    objects: tuple[OutputKind, ...] = ()
    seg: Encoding = Encoding.BINARY
    reject_superseded: bool = True
    verify: Verify = Verify.NONE
    verify_after_s: Seconds = 10.0
    verify_timeout_s: Seconds = 3600.0
    verify_resends: int = Field(3, ge=0, le=100)

    @field_validator("objects")
    @classmethod
    def _no_encodings(cls, objects: tuple[OutputKind, ...]) -> tuple[OutputKind, ...]:
        refuse_encodings(objects)
        return objects


class DimseSettings(DestinationSettings):
    """A PACS that takes results by C-STORE."""

    kind: Literal["dimse"] = "dimse"
    host: str
    port: Port = 104
    ae_title: AE
    calling_ae: AE | None = None
    user: str = Field("", max_length=1024)
    passcode: SecretStr = SecretStr("")
    passcode_in_clear: bool = False
    tls: DimseTls | None = None

    @model_validator(mode="after")
    def _identified(self) -> Self:
        if self.passcode.get_secret_value() and not self.user:
            raise ValueError("passcode needs the user that it belongs to")
        if self.passcode.get_secret_value() and self.tls is None and not self.passcode_in_clear:
            raise ValueError("passcode would cross the network in clear: give tls, or say passcode_in_clear = true")
        return self


class StowSettings(DestinationSettings):
    """A PACS that takes results by STOW-RS."""

    kind: Literal["stow"]
    url: str
    username: str = ""
    password: SecretStr = SecretStr("")
    token: SecretStr = SecretStr("")
    token_file: Path | None = None
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    @field_validator("url")
    @classmethod
    def _web(cls, url: str) -> str:
        if not url.startswith(("http://", "https://")):
            raise ValueError("use the URL of the DICOMweb service: https://HOST/dicom-web")
        return url.rstrip("/").removesuffix("/studies")

    @field_validator("verify")
    @classmethod
    def _no_commitment(cls, verify: Verify) -> Verify:
        return _query_only(verify)

    @model_validator(mode="after")
    def _one_way_in(self) -> Self:
        given = [bool(self.username), bool(self.token.get_secret_value()), self.token_file is not None]
        if sum(given) > 1:
            raise ValueError("give one of username, token and token_file")
        if self.key is not None and self.certificate is None:
            raise ValueError("key needs the certificate that belongs to it")
        return self


class FolderSettings(DestinationSettings):
    """A folder that results are put into."""

    kind: Literal["folder"]
    path: Path

    @field_validator("verify")
    @classmethod
    def _no_commitment(cls, verify: Verify) -> Verify:
        return _query_only(verify)


def _query_only(verify: Verify) -> Verify:
    if verify.by_commitment:
        raise ValueError("storage commitment is a service between AE titles (kind dimse): use none or query")
    return verify


def _kind_of(section: Any) -> Any:
    return section.get("kind", "dimse") if isinstance(section, dict) else getattr(section, "kind", "dimse")


AnyDestination = Annotated[
    Annotated[DimseSettings, Tag("dimse")]
    | Annotated[StowSettings, Tag("stow")]
    | Annotated[FolderSettings, Tag("folder")],
    Discriminator(
        _kind_of,
        custom_error_type="destination_kind",
        custom_error_message="kind: use dimse, stow or folder",
    ),
]


class Logs(_Section):
    """Logging."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"


class Settings(_Section):
    """Everything from the settings file. `file` is where it was read; paths are absolute."""

    file: Path
    node: Node = Node()
    database: Database = Database()
    spool: Spool = Spool()
    receive: Receive = Receive()
    retrieve: Retrieve = Retrieve()
    assemble: Assemble = Assemble()
    work: Work = Work()
    deliver: Deliver = Deliver()
    engine: Engine = Engine()
    retain: Retain = Retain()
    audit: Audit = Audit()
    trace: Trace = Trace()
    notify: Notify = Notify()
    web: Web = Web()
    oidc: Oidc | None = None
    logs: Logs = Logs()
    rules: Path = Path("rules")
    models: tuple[Path, ...] = ()
    destinations: dict[str, AnyDestination] = {}

    @model_validator(mode="after")
    def _asks_somebody(self) -> Self:
        named = {f"sources.{name}.": section.ask for name, section in self.assemble.sources.items()}
        for section, ask in {"": self.assemble.ask, **named}.items():
            if ask and not isinstance(self.destinations.get(ask), DimseSettings | StowSettings):
                raise ValueError(f"assemble.{section}ask: there is no [destinations.{ask}] of kind dimse or stow")
        return self


def load_settings(file: Path, environment: Mapping[str, str] = os.environ) -> Settings:
    """Read and check the settings.

    Raises
    ------
    ConfigurationError
        With one line per problem: file, key, what is wrong.
    """
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigurationError(f"{file}: no such settings file; `dicom-node init` writes one") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file}: not valid TOML: {error}") from None
    overridden = _override(document, environment)
    try:
        settings = Settings.model_validate({**document, "file": file.resolve()})
    except ValidationError as error:
        problems = explain(error)
        sources = [overridden.get(problem.partition(":")[0], str(file)) for problem in problems]
        raise ConfigurationError([f"{at}: {problem}" for at, problem in zip(sources, problems, strict=True)]) from None
    return _absolute(settings, file.resolve().parent)


def explain(error: ValidationError) -> list[str]:
    """One line per problem: the key as written in TOML, then what is wrong with it."""
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in _as_written(problem["loc"])) or "(top level)"
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message = "there is no such key; is it misspelt?"
        elif problem["type"] == "missing":
            message = "this key is needed"
        lines.append(f"{key}: {message}")
    return lines


def _as_written(loc: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Leave out the kind that pydantic puts after a destination's name: it is no part of the key."""
    return loc[:2] + loc[3:] if loc[:1] == ("destinations",) else loc


def _override(document: dict[str, Any], environment: Mapping[str, str]) -> dict[str, str]:
    """Put the environment's values over those of the file; return the variable's name for each key it set."""
    overridden = {}
    for name, text in environment.items():
        if not name.startswith(ENVIRONMENT_PREFIX):
            continue
        *sections, key = name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")
        place = document
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise ConfigurationError(f"{name}: {section} is a value in the settings file, not a section")
        place[key] = _value(text)
        overridden[".".join([*sections, key])] = name
    return overridden


def _value(text: str) -> Any:
    """Read a value as TOML would: 4, true, ["A"]; what is none of these is a text."""
    try:
        return tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        return text


def _absolute(settings: Settings, base: Path) -> Settings:
    url = make_url(settings.database.url)
    if url.get_backend_name() == "sqlite" and url.database:
        url = url.set(database=str(base / url.database))
    return settings.model_copy(
        update={
            "database": Database(url=url.render_as_string(hide_password=False)),
            "spool": settings.spool.model_copy(update={"path": base / settings.spool.path}),
            "notify": settings.notify.model_copy(
                update={
                    "channels": {
                        name: channel.model_copy(update=_placed(channel, base))
                        for name, channel in settings.notify.channels.items()
                    }
                }
            ),
            "receive": _rooted(settings.receive, base),
            "audit": settings.audit.model_copy(update=_placed(settings.audit, base)),
            "trace": settings.trace.model_copy(update=_placed(settings.trace, base)),
            "rules": base / settings.rules,
            "models": tuple(base / folder for folder in settings.models),
            "oidc": settings.oidc and settings.oidc.model_copy(update=_placed(settings.oidc, base)),
            "web": settings.web.model_copy(update=_placed(settings.web, base)),
            "destinations": {name: _rooted(d, base) for name, d in settings.destinations.items()},
        }
    )


def _is_web_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("https", "http") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:  # of the port
        return False


def _names_server(url: str, schemes: tuple[str, ...]) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in schemes and bool(parts.hostname and parts.port) and parts.path in ("", "/")
    except ValueError:  # of the port
        return False


def _placed(section: BaseModel, base: Path) -> dict[str, Path]:
    """Give the paths of a section, counted from `base`."""
    return {name: base / value for name, value in section if isinstance(value, Path)}


def _rooted(section: S, base: Path) -> S:
    """Count every path from `base`, those of the sections in it, too."""

    def rooted(value: Any) -> Any:
        if isinstance(value, Path):
            return base / value
        if isinstance(value, tuple):
            return tuple(rooted(one) for one in value)
        return _rooted(value, base) if isinstance(value, BaseModel) else value

    return section.model_copy(update={name: rooted(value) for name, value in section})
