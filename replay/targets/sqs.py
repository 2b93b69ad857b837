"""Replay to SQS: batches of ten messages, an outcome for each.

What carries what:

- the body is the payload where SQS allows its characters; else its base64, and the attribute
  ``penstock-encoding`` says ``base64``. SQS has no empty message: that one is a space, ``empty``;
- a header is an attribute: a String where the value is text that SQS allows, else Binary. All of
  them are where each name stands once, may be an attribute's and has a value, and where there is
  room: SQS allows ten. Otherwise they all stand in ``penstock-headers``, JSON, in their order: a
  list of ``[name, text]``, or ``[name, {"base64": …}]`` where the value is no text of UTF-8;
- ``content-type`` is the event's, unless a header says so already. Unless verbatim there are
  ``penstock-key``, the key (String or Binary, as headers are), and the five of the replay. A value
  that no attribute can have (empty, or with control characters) is left out of these.

FIFO queues: the message group is the key, or its SHA-256 where a group may not be written so; each
event without a key is a group of its own. The deduplication id is replay and position on the log:
the same in every attempt and after a crash, another for every other replay and event.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Literal

import aiohttp
import msgspec

from penstock.envelope import CollectionId, Event
from penstock.errors import AddressRefused
from penstock.guard import Guard, Lookup, system_lookup
from replay.targets import (
    BROKEN,
    GONE,
    NOT_CONFIRMED,
    NOT_LET_IN,
    TOO_LARGE,
    Delivered,
    Failed,
    Message,
    Outcome,
    Retry,
    needs,
)
from replay.targets.added import CONTENT_TYPE, Added, has_type
from replay.targets.http import agreed_url, outcome_of_error
from replay.targets.places import SqsOptions, SqsPlace
from replay.targets.wire import Wire

try:
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials
except ImportError as error:
    raise needs("boto3", "sqs") from error

BATCH = 10
MOST_ATTRIBUTES = 10
MOST_BYTES = 1 << 20
"""Of a message, and of a batch. A queue may allow less, and then says so."""

_TEXT = re.compile("[\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]+")
_NAME = re.compile(r"(?!\.)(?!.*\.\.)(?!(?i:aws|amazon)\.)[A-Za-z0-9_.-]{1,256}(?<!\.)")
_GROUP = re.compile(r"[A-Za-z0-9!-/:-@\[-`{-~]{1,128}")
_MOST_ANSWER_BYTES = 1 << 20
_THROTTLED_SECONDS = 1.0
_EXAMINE_SECONDS = 10.0

_KEY = "penstock-key"
_ENCODING = "penstock-encoding"
_HEADERS = "penstock-headers"
_OURS = frozenset({_KEY, _ENCODING, _HEADERS})

_DELIVERED = Delivered(200)
_REFUSED_EVENT = Failed("the destination refused the event", 400)
_NOT_TAKEN = Retry("the destination did not take the event")
_THROTTLED = Retry("the destination asked for fewer events", 429, _THROTTLED_SECONDS)

# What stands behind the last # of an error's type, with the old names beside the new.
_GONE = frozenset(
    {"QueueDoesNotExist", "NonExistentQueue", "AWS.SimpleQueueService.NonExistentQueue"}
)
_THROTTLES = frozenset({"RequestThrottled", "ThrottlingException", "Throttling", "KmsThrottled"})
_TOO_LONG = frozenset({"BatchRequestTooLong", "AWS.SimpleQueueService.BatchRequestTooLong"})
_SENDER = frozenset({"InvalidMessageContents", "InvalidParameterValue", "InvalidAttributeValue"})


class _Entry(msgspec.Struct):
    id: str = msgspec.field(name="Id")


class _Refusal(msgspec.Struct):
    id: str = msgspec.field(name="Id")
    code: str = msgspec.field(name="Code", default="")
    by_sender: bool = msgspec.field(name="SenderFault", default=False)


class _Answer(msgspec.Struct):
    successful: list[_Entry] = msgspec.field(name="Successful", default=[])
    failed: list[_Refusal] = msgspec.field(name="Failed", default=[])


class _Bytes(msgspec.Struct):
    base64: str


class _Problem(msgspec.Struct):
    type: str = msgspec.field(name="__type", default="")


class SqsTarget:
    """Sends events to one queue. Opens nothing before the first `send`."""

    most = BATCH
    ordered = False

    def __init__(
        self,
        place: SqsPlace,
        options: SqsOptions,
        secret: str,
        *,
        guard: Guard,
        replay_id: str,
        collection: CollectionId,
        headers: Literal["add", "verbatim"] = "add",
        marked: bool = True,
        timeout: float = 30.0,
        lookup: Lookup = system_lookup,
    ) -> None:
        self._place = place
        self._options = options
        self._url = agreed_url(guard, place.endpoint.url).with_path("/")
        self._guard = guard
        self._lookup = lookup
        self._replay = replay_id
        self._added = Added(replay_id, collection, headers, extra=_OURS, marked=marked)
        self._seconds = timeout
        self._auth = SigV4Auth(Credentials(*secret.split(":", 2)), "sqs", place.region)
        self._wire: Wire | None = None

    def entry(self, message: Message) -> dict[str, Any]:
        """Answer a message as SQS takes it, its ``Id`` aside."""
        event = message.event
        body, encoding = body_of(event.payload)
        own: dict[str, Any] = {}
        if encoding is not None:
            own[_ENCODING] = _attribute(encoding)
        if event.key and self._added.adds:
            own[_KEY] = _attribute(event.key)
        if event.content_type is not None and not has_type(event.headers):
            own[CONTENT_TYPE] = _attribute(event.content_type)
        for name, text in self._added.pairs(message):
            own[name] = _attribute(text)
        own = {name: value for name, value in own.items() if value is not None}
        entry: dict[str, Any] = {"MessageBody": body}
        headers = self._added.kept(event.headers)
        attributes = attributes_of(headers, room=MOST_ATTRIBUTES - len(own), taken=own)
        if attributes or own:
            entry["MessageAttributes"] = {**attributes, **own}
        if self._place.fifo:
            entry["MessageGroupId"] = self._options.group or group_of(event)
            place = message.position
            entry["MessageDeduplicationId"] = f"{self._replay}-{place.partition}-{place.offset}"
        return entry

    def check(self, message: Message) -> Failed | None:
        """Make the message and weigh it."""
        return TOO_LARGE if weight(self.entry(message)) > MOST_BYTES else None

    async def examine(self) -> str | None:
        """Ask for the queue's name as the service knows it."""
        asked = {"QueueUrl": self._place.queue_url, "AttributeNames": ["QueueArn"]}
        try:
            async with asyncio.timeout(_EXAMINE_SECONDS):
                status, body = await self._call("GetQueueAttributes", asked)
        except (aiohttp.ClientError, OSError, AddressRefused, ValueError) as error:
            return _error(error).reason
        if status == HTTPStatus.OK:
            return None
        if (problem := _type(body)) in _GONE:
            return "there is no such queue"
        return _refusal(status, problem).reason

    async def send(self, messages: Sequence[Message]) -> Sequence[Outcome]:
        """Send all of them, in as few calls as their sizes allow."""
        outcomes: list[Outcome] = [NOT_CONFIRMED] * len(messages)
        entries = {}
        for number, message in enumerate(messages):
            entry = self.entry(message)
            if weight(entry) > MOST_BYTES:
                outcomes[number] = TOO_LARGE
            else:
                entries[number] = entry
        for numbers in _batches(entries):
            for number, outcome in (await self._send(entries, numbers)).items():
                outcomes[number] = outcome
        return outcomes

    async def _send(
        self, entries: Mapping[int, dict[str, Any]], numbers: Sequence[int]
    ) -> dict[int, Outcome]:
        """Send one batch; what a queue finds too large, or cannot place, in halves."""
        batch = [{"Id": str(number), **entries[number]} for number in numbers]
        asked = {"QueueUrl": self._place.queue_url, "Entries": batch}
        try:
            async with asyncio.timeout(self._seconds):
                status, body = await self._call("SendMessageBatch", asked)
        except (aiohttp.ClientError, OSError, AddressRefused, ValueError) as error:
            return dict.fromkeys(numbers, _error(error))
        if status == HTTPStatus.OK:
            return _told(body, numbers)
        problem = _type(body)
        if problem in _TOO_LONG or problem in _SENDER:
            if len(numbers) == 1:
                return {numbers[0]: TOO_LARGE if problem in _TOO_LONG else _REFUSED_EVENT}
            middle = len(numbers) // 2
            first = await self._send(entries, numbers[:middle])
            return {**first, **await self._send(entries, numbers[middle:])}
        return dict.fromkeys(numbers, _refusal(status, problem))

    async def _call(self, action: str, asked: Mapping[str, Any]) -> tuple[int, bytes]:
        """Call the service once, over a connection whose address passed."""
        wire = self._wire
        if wire is None:
            wire = self._wire = Wire(self._url, self._guard, self._lookup)
        body = msgspec.json.encode(asked)
        headers = {
            "Content-Type": "application/x-amz-json-1.0",
            "X-Amz-Target": f"AmazonSQS.{action}",
        }
        request = AWSRequest("POST", str(self._url), data=body, headers=headers)
        self._auth.add_auth(request)
        connection = await wire.connect()
        try:
            wire.check(connection)
            answer, rest = await wire.exchange(connection, request.headers.items(), body)
            told = await _read(rest)
        except BaseException:
            connection.close()
            raise
        wire.let_go(connection)
        return answer.code, told

    async def close(self) -> None:
        """Close every connection."""
        if self._wire is not None:
            await self._wire.close()
            self._wire = None


def body_of(payload: bytes) -> tuple[str, str | None]:
    """Answer a message's body, and how it is encoded if it is; `payload_of` reads it back."""
    if not payload:
        return " ", "empty"
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        text = ""
    if _TEXT.fullmatch(text):
        return text, None
    return base64.b64encode(payload).decode(), "base64"


def payload_of(body: str, encoding: str | None) -> bytes:
    """Answer the payload that a body stands for."""
    match encoding:
        case "empty":
            return b""
        case "base64":
            return base64.b64decode(body)
        case _:
            return body.encode()


def attributes_of(
    headers: Sequence[tuple[str, bytes]], *, room: int, taken: Mapping[str, object]
) -> dict[str, Any]:
    """Answer an event's headers as attributes: one for each, or one for all."""
    if not headers:
        return {}
    attributes: dict[str, Any] = {}
    for name, value in headers:
        attribute = _attribute(value)
        if (
            attribute is None
            or name in attributes
            or name in taken
            or name in _OURS
            or not _NAME.fullmatch(name)
        ):
            break
        attributes[name] = attribute
    else:
        if len(attributes) <= room:
            return attributes
    pairs = [(name, _json_value(value)) for name, value in headers]
    text = msgspec.json.encode(pairs).decode()
    return {_HEADERS: {"DataType": "String", "StringValue": text}}


def headers_of(attributes: Iterable[tuple[str, str | bytes]]) -> list[tuple[str, bytes]]:
    """Answer the headers that attributes stand for, ours aside."""
    found: list[tuple[str, bytes]] = []
    for name, value in attributes:
        if name != _HEADERS:
            found.append((name, value.encode() if isinstance(value, str) else value))
            continue
        for other, told in msgspec.json.decode(value, type=list[tuple[str, str | _Bytes]]):
            data = told.encode() if isinstance(told, str) else base64.b64decode(told.base64)
            found.append((other, data))
    return found


def group_of(event: Event) -> str:
    """Answer the message group of an event."""
    data = event.id.encode("utf-8", "surrogatepass") if event.key is None else event.key
    text = data.decode("latin-1")
    return text if _GROUP.fullmatch(text) else hashlib.sha256(data).hexdigest()


def weight(entry: Mapping[str, Any]) -> int:
    """Answer the bytes that SQS counts: the body, and name, type and value of each attribute."""
    size = len(entry["MessageBody"].encode())
    for name, attribute in entry.get("MessageAttributes", {}).items():
        size += len(name) + len(attribute["DataType"])
        binary = attribute.get("BinaryValue")
        text = attribute.get("StringValue", "")
        size += len(text.encode()) if binary is None else len(binary) * 3 // 4
    return size


def _batches(entries: Mapping[int, dict[str, Any]]) -> Iterator[list[int]]:
    """Answer the numbers in calls of ten and of as many bytes as one may have."""
    batch: list[int] = []
    held = 0
    for number, entry in entries.items():
        size = weight(entry)
        if batch and (len(batch) == BATCH or held + size > MOST_BYTES):
            yield batch
            batch, held = [], 0
        batch.append(number)
        held += size
    if batch:
        yield batch


def _attribute(value: str | bytes) -> dict[str, str] | None:
    """Answer an attribute; None for a value that none can have."""
    try:
        text = value if isinstance(value, str) else value.decode()
    except UnicodeDecodeError:
        text = ""
    if _TEXT.fullmatch(text):
        return {"DataType": "String", "StringValue": text}
    if not value or isinstance(value, str):
        return None
    return {"DataType": "Binary", "BinaryValue": base64.b64encode(value).decode()}


def _json_value(value: bytes) -> object:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode()}
    # JSON may write what SQS does not allow with a backslash, up to one character.
    if _TEXT.fullmatch(msgspec.json.encode(text).decode()):
        return text
    return {"base64": base64.b64encode(value).decode()}


async def _read(body: aiohttp.StreamReader) -> bytes:
    """Read an answer whole; raise `ValueError` for one that has no end."""
    told = b""
    while not body.at_eof():
        told += await body.readany()
        if len(told) > _MOST_ANSWER_BYTES:
            raise ValueError("the answer is too long")
    return told


def _told(body: bytes, numbers: Sequence[int]) -> dict[int, Outcome]:
    """Read the answer to a batch; what it does not name was not confirmed."""
    outcomes: dict[int, Outcome] = dict.fromkeys(numbers, NOT_CONFIRMED)
    try:
        answer = msgspec.json.decode(body, type=_Answer)
    except msgspec.DecodeError:
        return outcomes
    known: Callable[[str], bool] = {str(number) for number in numbers}.__contains__
    for entry in answer.successful:
        if known(entry.id):
            outcomes[int(entry.id)] = _DELIVERED
    for refusal in answer.failed:
        if known(refusal.id):
            outcomes[int(refusal.id)] = _outcome(refusal)
    return outcomes


def _outcome(refusal: _Refusal) -> Outcome:
    if refusal.code in _THROTTLES:
        return _THROTTLED
    return _REFUSED_EVENT if refusal.by_sender else _NOT_TAKEN


def _type(body: bytes) -> str:
    try:
        return msgspec.json.decode(body, type=_Problem).type.rpartition("#")[2]
    except msgspec.DecodeError:
        return ""


def _refusal(status: int, problem: str) -> Retry:
    """Say what the service's refusal of a whole call means: nothing about an event."""
    if problem in _THROTTLES or status in (429, 503):
        return Retry(_THROTTLED.reason, status, _THROTTLED_SECONDS)
    if problem in _GONE:
        return Retry(GONE.reason, status)
    if status in (401, 403) or problem in ("AccessDeniedException", "InvalidClientTokenId"):
        return Retry(NOT_LET_IN.reason, status)
    return Retry(f"answered {status}", status)


def _error(error: Exception) -> Retry:
    outcome = outcome_of_error(error)
    return outcome if isinstance(outcome, Retry) else BROKEN
