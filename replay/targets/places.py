"""What a destination may be: its kind, its address, its options. Pure; opens and asks nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeVar
from urllib.parse import quote, unquote, urlsplit

import msgspec

from penstock.envelope import CollectionId, check_name
from penstock.errors import AddressRefused, BadName, BadRequest, about
from penstock.guard import Endpoint, Guard
from penstock.metadata.records import CollectionRecord, Destination
from penstock.vocabulary import Kind
from replay.request import HeaderMode, placed
from replay.targets.signing import Signing, signer

_S = TypeVar("_S", bound=msgspec.Struct)

KAFKA_PORT = 9092
AMQP_PORTS = {"amqp": 5672, "amqps": 5671}
"""The standard ports, which pass the guard for this kind; Kafka's do for every kind."""

_KINDS: Mapping[str, Kind] = {
    "http": "http",
    "https": "http",
    "kafka": "kafka",
    "amqp": "rabbitmq",
    "amqps": "rabbitmq",
    "sqs": "sqs",
    "sqs+http": "sqs",
    "collection": "collection",
    "file": "file",
    "tunnel": "tunnel",
}
_TOPIC = re.compile(r"[a-zA-Z0-9._-]{1,249}")
_AMAZON = re.compile(r"sqs\.([a-z0-9-]+)\.amazonaws\.com(?:\.cn)?")
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_TUNNEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_GROUP = re.compile(r"[!-~]{1,128}")
_LONGEST_NAME = 255
_LONGEST_CA = 100_000
_LONGEST_SECRET = 10_000


Timestamps = Literal["original", "fresh"]


class KafkaOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a Kafka destination is written to."""

    partition: Literal["key", "kept"] = "key"
    """By the hash of the key, or the one that the event came from (where it is known)."""
    timestamps: Timestamps = "fresh"
    """The time of a record: that of sending; or the event's own, else that of its receipt."""
    tls: bool = False
    sasl: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    """How the secret, ``user:password``, is told; not at all without one."""
    ca: str | None = None
    """Certificates (PEM) to trust instead of the system's."""


class RabbitOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a RabbitMQ destination is written to."""

    exchange: str = ""
    """The default exchange, which takes a queue's name as the routing key."""
    routing_key: str | None = None
    """One for all events; null: the one that the event came with."""
    ca: str | None = None


class SqsOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How an SQS destination is written to."""

    region: str = ""
    """Empty: as the host says."""
    group: str | None = None
    """The message group of all events in a FIFO queue; null: a group for each key."""


Comparison = Literal["status", "body"]


class HttpOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How an HTTP destination is posted to, beside its headers."""

    method: Literal["POST", "PUT", "PATCH"] = "POST"
    signing: Signing = "none"
    """How each request is signed with the secret."""
    ca: str | None = None
    """Certificates (PEM) to trust instead of the system's."""
    token_url: str | None = None
    """Where a token is asked for with client_id and the credential client_secret."""
    client_id: str | None = None
    scope: str | None = None
    client_auth: Literal["basic", "body"] = "basic"
    """How id and secret are told to the token endpoint."""
    compare_url: str | None = None
    """Where each event is sent, too, and whose answer is compared."""
    compare: Comparison = "status"
    """What of an answer has to be the same: the status, or the body as well."""


class CollectionOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A collection has none."""


class FileOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a file is when it is taken away."""

    format: Literal["ndjson", "parquet"] = "ndjson"


class TunnelOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A tunnel has none: what it writes to, and how, was said where it was started."""


class KafkaPlace(NamedTuple):
    """Brokers to begin with, and the topic."""

    brokers: Sequence[Endpoint]
    topic: str

    @property
    def url(self) -> str:
        """The normal form."""
        return f"kafka://{','.join(each.url for each in self.brokers)}/{self.topic}"


class RabbitPlace(NamedTuple):
    """A server and a virtual host."""

    endpoint: Endpoint
    vhost: str
    tls: bool

    @property
    def url(self) -> str:
        """The normal form."""
        scheme = "amqps" if self.tls else "amqp"
        return f"{scheme}://{self.endpoint.url}/{quote(self.vhost, safe='')}"


class FilePlace(NamedTuple):
    """A file's name: how it is called for who takes it away, and no path."""

    name: str

    @property
    def url(self) -> str:
        """The normal form."""
        return f"file://{self.name}"


class SqsPlace(NamedTuple):
    """A queue by the URL that SQS knows it by."""

    endpoint: Endpoint
    region: str

    @property
    def queue_url(self) -> str:
        """What is sent as ``QueueUrl``."""
        return self.endpoint.url

    @property
    def fifo(self) -> bool:
        """FIFO queues are told by their name."""
        return self.endpoint.url.endswith(".fifo")

    @property
    def url(self) -> str:
        """The normal form."""
        scheme = "sqs+http" if self.endpoint.scheme == "http" else "sqs"
        return f"{scheme}://{self.endpoint.url.partition('://')[2]}"


def kind_of(url: str, asked: Kind | None = None) -> Kind:
    """Answer the kind that the URL's scheme stands for; `asked` may make an ``https`` one SQS's."""
    scheme = url.partition("://")[0].lower()
    found = _KINDS.get(scheme)
    if asked == "sqs" and scheme in ("http", "https"):
        return "sqs"
    if found is None:
        known = ", ".join(f"{each}://" for each in _KINDS)
        raise AddressRefused(f"the address begins with none of {known}").at("url")
    if asked is not None and asked != found:
        raise BadRequest(f"the address is one of {found}, not of {asked}").at("url")
    return found


@about("url")
def kafka_place(url: str, guard: Guard) -> KafkaPlace:
    """Read ``kafka://host:port,host:port/topic``."""
    rest = _without_scheme(url, "kafka")
    hosts, _, topic = rest.partition("/")
    if not _TOPIC.fullmatch(topic) or topic in (".", ".."):
        raise BadRequest("write the address as kafka://host:port,host:port/topic")
    brokers = [guard.place(each, default_port=KAFKA_PORT) for each in hosts.split(",")]
    return KafkaPlace(brokers, topic)


@about("url")
def rabbit_place(url: str, guard: Guard) -> RabbitPlace:
    """Read ``amqp://host:port/vhost`` or ``amqps://…``; no path is the virtual host ``/``."""
    scheme = url.partition("://")[0].lower()
    rest = _without_scheme(url, *AMQP_PORTS)
    host, _, path = rest.partition("/")
    vhost = unquote(path) or "/"
    if "?" in rest or "#" in rest or "/" in path or len(vhost.encode()) > _LONGEST_NAME:
        raise BadRequest("write the address as amqp://host:port/vhost, the vhost percent-encoded")
    guard = guard.with_ports(AMQP_PORTS.values())
    endpoint = guard.place(host, default_port=AMQP_PORTS[scheme])
    return RabbitPlace(endpoint, vhost, scheme == "amqps")


def sqs_place(url: str, options: SqsOptions, guard: Guard) -> SqsPlace:
    """Read ``sqs://sqs.REGION.amazonaws.com/ACCOUNT/QUEUE``, or ``sqs+http://…`` without TLS."""
    scheme, _, rest = url.partition("://")
    plain = scheme.lower() in ("sqs+http", "http")
    with about("url"):
        endpoint = guard.endpoint(f"{'http' if plain else 'https'}://{rest}")
        path = urlsplit(endpoint.url)
        if path.query or path.path.count("/") < 2 or path.path.endswith("/"):  # noqa: PLR2004
            raise BadRequest("write the address as sqs://sqs.REGION.amazonaws.com/ACCOUNT/QUEUE")
    amazon = _AMAZON.fullmatch(endpoint.host)
    region = options.region or (amazon[1] if amazon else "")
    if not re.fullmatch(r"[a-z0-9-]{1,40}", region):
        said = "this address does not say which region it is in: give the option region"
        raise BadRequest(said).at("options.region")
    if options.group is not None and not _GROUP.fullmatch(options.group):
        said = "a group has up to 128 letters, digits and punctuation marks"
        raise BadRequest(said).at("options.group")
    return SqsPlace(endpoint, region)


@about("url")
def collection_place(url: str, team: str) -> CollectionId:
    """Read ``collection://NAME``: a collection of the destination's own team, and of no other."""
    name = _without_scheme(url, "collection")
    try:
        return CollectionId(team, check_name(name, what="collection"))
    except BadName as error:
        raise BadRequest(
            "write the address as collection://NAME, with the name of a collection of this team"
        ) from error


@about("url")
def file_place(url: str) -> FilePlace:
    """Read ``file://NAME``; a name that could be a path is refused."""
    name = _without_scheme(url, "file")
    if not _FILE.fullmatch(name):
        raise AddressRefused(
            "write the address as file://NAME: a name of letters, digits, '-', '_' and '.', and no "
            "path; the file is kept in the home, and taken away with 'penstock replay download'"
        )
    return FilePlace(name)


def tunnel_name(url: str) -> str:
    """Read ``tunnel://NAME``: the name that clients give when they connect."""
    name = _without_scheme(url, "tunnel")
    if not _TUNNEL.fullmatch(name):
        raise BadRequest(
            "write the address as tunnel://NAME: up to 100 letters, digits, '-', '_' and '.'"
        )
    return name


def refuse_its_own(to: CollectionRecord, taken_from: CollectionId, headers: HeaderMode) -> None:
    """Raise `AddressRefused` where events would come back to the collection they are taken from.

    One that takes such events is told by their headers which they are; ``verbatim`` has none.
    """
    if to.id == taken_from and (headers == "verbatim" or not to.allow_loops):
        raise AddressRefused(
            f"this destination is the collection {taken_from.name!r} itself, which the events are "
            "taken from"
        )


def http_options(values: Mapping[str, Any]) -> HttpOptions:
    """Read the options of an HTTP destination."""
    return _options(values, HttpOptions)


def kafka_options(values: Mapping[str, Any]) -> KafkaOptions:
    """Read the options of a Kafka destination."""
    return _options(values, KafkaOptions)


def rabbit_options(values: Mapping[str, Any]) -> RabbitOptions:
    """Read the options of a RabbitMQ destination."""
    options = _options(values, RabbitOptions)
    texts = {"exchange": options.exchange, "routing_key": options.routing_key or ""}
    for name, text in texts.items():
        if len(text.encode()) > _LONGEST_NAME:
            said = "exchange and routing key have 255 bytes at most"
            raise BadRequest(said).at(f"options.{name}")
    return options


def sqs_options(values: Mapping[str, Any]) -> SqsOptions:
    """Read the options of an SQS destination."""
    return _options(values, SqsOptions)


def collection_options(values: Mapping[str, Any]) -> CollectionOptions:
    """Read the options of a collection as a destination."""
    return _options(values, CollectionOptions)


def file_options(values: Mapping[str, Any]) -> FileOptions:
    """Read the options of a file as a destination."""
    return _options(values, FileOptions)


def tunnel_options(values: Mapping[str, Any]) -> TunnelOptions:
    """Read the options of a tunnel."""
    return _options(values, TunnelOptions)


def check_place(record: Destination, guard: Guard) -> Destination:
    """Answer the destination with its address in normal form.

    Raises `AddressRefused` for an address that replays may not reach, `BadRequest` for one that
    cannot be read, for options that the kind does not have, and for a secret it cannot use.
    """
    if record.kind != "http" and (record.headers or record.credentials):
        raise BadRequest("only HTTP destinations have headers and credentials of their own")
    if record.secret is not None and len(record.secret) > _LONGEST_SECRET:
        raise BadRequest(f"a secret has {_LONGEST_SECRET} characters at most").at("secret")
    match record.kind:
        case "http":
            options = http_options(record.options)
            signer(options.signing, record.secret)
            _check_http(record, options)
            return record
        case "kafka":
            kafka_options(record.options)
            url = kafka_place(record.url, guard).url
            _check_pair(record.secret)
        case "rabbitmq":
            rabbit_options(record.options)
            url = rabbit_place(record.url, guard).url
            _check_pair(record.secret)
        case "sqs":
            url = sqs_place(record.url, sqs_options(record.options), guard).url
            if record.secret is None or len(record.secret.split(":", 2)) < 2:  # noqa: PLR2004
                said = "SQS needs a secret: write it as KEY_ID:SECRET_KEY[:SESSION]"
                raise BadRequest(said).at("secret")
        case "collection" | "file" | "tunnel":
            url = _place_within(record)
    return msgspec.structs.replace(record, url=url)


def _place_within(record: Destination) -> str:
    """Answer the normal form of an address to which nothing is connected from here."""
    if record.secret is not None:
        raise BadRequest(f"a {record.kind} needs no secret").at("secret")
    if record.kind == "file":
        file_options(record.options)
        return file_place(record.url).url
    if record.kind == "tunnel":
        tunnel_options(record.options)
        return f"tunnel://{tunnel_name(record.url)}"
    collection_options(record.options)
    return f"collection://{collection_place(record.url, record.team).name}"


def _check_http(record: Destination, options: HttpOptions) -> None:
    """Raise `BadRequest` unless what belongs together is there together."""
    asks = (options.token_url, options.client_id, record.credentials.get("client_secret"))
    if any(asks) and not all(asks):
        raise BadRequest(
            "a token is asked for with the options token_url and client_id and the credential "
            "client_secret: give all three or none"
        ).at("options.token_url")
    if not options.token_url and (options.scope or options.client_auth != "basic"):
        said = "scope and client_auth are said to a token_url, and there is none"
        raise BadRequest(said).at("options.token_url")
    if options.compare != "status" and not options.compare_url:
        said = "answers are compared with those of a compare_url, and there is none"
        raise BadRequest(said).at("options.compare_url")
    if not record.url.lower().startswith("https:") and (
        options.ca or "client_certificate" in record.credentials
    ):
        raise BadRequest("certificates need an address that begins with https://")


def pair_of(secret: str | None) -> tuple[str, str] | None:
    """Answer user and password."""
    if secret is None:
        return None
    user, _, password = secret.partition(":")
    return user, password


def _check_pair(secret: str | None) -> None:
    if secret is not None and ":" not in secret:
        raise BadRequest("write the secret as user:password").at("secret")


def _without_scheme(url: str, *schemes: str) -> str:
    scheme, _, rest = url.partition("://")
    if scheme.lower() not in schemes:
        raise BadRequest(f"the address begins with {schemes[0]}://")
    return rest


def _options(values: Mapping[str, Any], kind: type[_S]) -> _S:
    try:
        options = msgspec.convert(dict(values), kind)
    except msgspec.ValidationError as error:
        said, field = placed(error)
        where = f"options.{field}" if field else "options"
        said = f"the option {field} cannot be used: {said}" if field else f"options: {said}"
        raise BadRequest(said).at(where) from error
    ca = getattr(options, "ca", None)
    if ca is not None and (len(ca) > _LONGEST_CA or "BEGIN CERTIFICATE" not in ca):
        raise BadRequest("the option ca is no PEM text with certificates").at("options.ca")
    return options
