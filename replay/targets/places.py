"""What a destination may be: its kind, its address, its options. Pure; opens and asks nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeVar
from urllib.parse import quote, unquote, urlsplit

import msgspec

from penstock.errors import AddressRefused, BadRequest
from penstock.guard import Endpoint, Guard
from penstock.metadata.records import Destination
from penstock.vocabulary import Kind
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
}
_TOPIC = re.compile(r"[a-zA-Z0-9._-]{1,249}")
_AMAZON = re.compile(r"sqs\.([a-z0-9-]+)\.amazonaws\.com(?:\.cn)?")
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
        raise AddressRefused(f"the address begins with none of {known}")
    if asked is not None and asked != found:
        raise BadRequest(f"the address is one of {found}, not of {asked}")
    return found


def kafka_place(url: str, guard: Guard) -> KafkaPlace:
    """Read ``kafka://host:port,host:port/topic``."""
    rest = _without_scheme(url, "kafka")
    hosts, _, topic = rest.partition("/")
    if not _TOPIC.fullmatch(topic) or topic in (".", ".."):
        raise BadRequest("write the address as kafka://host:port,host:port/topic")
    brokers = [guard.place(each, default_port=KAFKA_PORT) for each in hosts.split(",")]
    return KafkaPlace(brokers, topic)


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
    endpoint = guard.endpoint(f"{'http' if plain else 'https'}://{rest}")
    path = urlsplit(endpoint.url)
    if path.query or path.path.count("/") < 2 or path.path.endswith("/"):  # noqa: PLR2004
        raise BadRequest("write the address as sqs://sqs.REGION.amazonaws.com/ACCOUNT/QUEUE")
    amazon = _AMAZON.fullmatch(endpoint.host)
    region = options.region or (amazon[1] if amazon else "")
    if not re.fullmatch(r"[a-z0-9-]{1,40}", region):
        raise BadRequest("this address does not say which region it is in: give the option region")
    if options.group is not None and not _GROUP.fullmatch(options.group):
        raise BadRequest("a group has up to 128 letters, digits and punctuation marks")
    return SqsPlace(endpoint, region)


def http_options(values: Mapping[str, Any]) -> HttpOptions:
    """Read the options of an HTTP destination."""
    return _options(values, HttpOptions)


def kafka_options(values: Mapping[str, Any]) -> KafkaOptions:
    """Read the options of a Kafka destination."""
    return _options(values, KafkaOptions)


def rabbit_options(values: Mapping[str, Any]) -> RabbitOptions:
    """Read the options of a RabbitMQ destination."""
    options = _options(values, RabbitOptions)
    for text in (options.exchange, options.routing_key or ""):
        if len(text.encode()) > _LONGEST_NAME:
            raise BadRequest("exchange and routing key have 255 bytes at most")
    return options


def sqs_options(values: Mapping[str, Any]) -> SqsOptions:
    """Read the options of an SQS destination."""
    return _options(values, SqsOptions)


def check_place(record: Destination, guard: Guard) -> Destination:
    """Answer the destination with its address in normal form.

    Raises `AddressRefused` for an address that replays may not reach, `BadRequest` for one that
    cannot be read, for options that the kind does not have, and for a secret it cannot use.
    """
    if record.kind != "http" and (record.headers or record.credentials):
        raise BadRequest("only HTTP destinations have headers and credentials of their own")
    if record.secret is not None and len(record.secret) > _LONGEST_SECRET:
        raise BadRequest(f"a secret has {_LONGEST_SECRET} characters at most")
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
                raise BadRequest("SQS needs a secret: write it as KEY_ID:SECRET_KEY[:SESSION]")
    return msgspec.structs.replace(record, url=url)


def _check_http(record: Destination, options: HttpOptions) -> None:
    """Raise `BadRequest` unless what belongs together is there together."""
    asks = (options.token_url, options.client_id, record.credentials.get("client_secret"))
    if any(asks) and not all(asks):
        raise BadRequest(
            "a token is asked for with the options token_url and client_id and the credential "
            "client_secret: give all three or none"
        )
    if not options.token_url and (options.scope or options.client_auth != "basic"):
        raise BadRequest("scope and client_auth are said to a token_url, and there is none")
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
        raise BadRequest("write the secret as user:password")


def _without_scheme(url: str, *schemes: str) -> str:
    scheme, _, rest = url.partition("://")
    if scheme.lower() not in schemes:
        raise BadRequest(f"the address begins with {schemes[0]}://")
    return rest


def _options(values: Mapping[str, Any], kind: type[_S]) -> _S:
    try:
        options = msgspec.convert(dict(values), kind)
    except msgspec.ValidationError as error:
        raise BadRequest(f"the destination's options cannot be read: {error}") from error
    ca = getattr(options, "ca", None)
    if ca is not None and (len(ca) > _LONGEST_CA or "BEGIN CERTIFICATE" not in ca):
        raise BadRequest("the option ca is no PEM text with certificates")
    return options
