"""A bus that stops answering, or goes away, in the middle of a replay."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from balance import compare
from builders import event
from engines import places
from engines.kafka import Kafka
from evidence.sheet import found, happened
from far_sides import HERE, Took, far_side
from own_engines import own_engine

from penstock.envelope import Position
from penstock.guard import Guard
from replay.targets import Delivered, Message, Outcome, Retry, Target

pytestmark = [
    pytest.mark.engines,
    pytest.mark.crash,
]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """Start a broker of this file's own: the shared one is other tests' too."""
    with (
        own_engine(Kafka, tmp_path_factory.mktemp("broker")) as made,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(places, "KAFKA", f"{places.HOST}:{made.port}")
        yield made


def messages(start: int, count: int) -> list[Message]:
    return [
        Message(event(b"%d" % n, key=b"k%d" % (n % 3)), Position(0, n), 1)
        for n in range(start, start + count)
    ]


@pytest.mark.breaks("the broker that a replay sends to")
@pytest.mark.xdist_group("broker")
@pytest.mark.parametrize("how", ["pause", "stop"])
def test_a_broker_that_goes_away_delivers_a_beginning_of_the_batch_and_the_rest_later(
    broker: Kafka, how: str
) -> None:
    """In a bounded time, in order, and nothing is lost."""

    async def main(target: Target) -> tuple[list[Outcome], float, list[Outcome], float]:
        first = await target.send(messages(0, 2_000))
        await asyncio.to_thread(broker.pause if how == "pause" else broker.stop)
        happened("outages")
        begun = time.monotonic()
        away = list(await target.send(messages(2_000, 2_000)))
        seconds = time.monotonic() - begun
        begun = time.monotonic()
        again = list(await target.send(messages(2_000, 2_000)))
        seconds_again = time.monotonic() - begun
        await asyncio.to_thread(broker.resume if how == "pause" else broker.start)
        left = [
            m for m, o in zip(messages(2_000, 2_000), again, strict=True) if isinstance(o, Retry)
        ]
        back: list[Outcome] = []
        for _ in range(20):
            back = list(await target.send(left))
            if {type(each) for each in back} == {Delivered}:
                break
            await asyncio.sleep(0.5)
        closing = time.monotonic()
        await target.close()
        assert time.monotonic() - closing < 5
        return [*first, *away], max(seconds, seconds_again), back, closing

    with far_side("kafka") as far:
        far.guard = Guard((HERE,), (broker.port,))
        outcomes, seconds, back, _ = asyncio.run(main(far.open(timeout=3.0)))
        took = far.took(20_000, patience=5)

    assert {type(each) for each in outcomes[:2_000]} == {Delivered}
    assert {type(each) for each in outcomes[2_000:]} == {Retry}
    assert seconds < 10
    assert {type(each) for each in back} == {Delivered}
    told = {n: b"k%d" % (n % 3) for n in range(4_000)}
    held = [(int(each.payload), each.key) for each in took]
    found(receiver=compare(told, held, most_again=len(held), lane=lambda n: n % 3))


@dataclass
class Line:
    """A way to a port that can be cut, or made to carry nothing."""

    port: int = 0
    frozen: bool = False
    writers: set[asyncio.StreamWriter] | None = None


@contextmanager
def line_to(port: int) -> Iterator[Line]:
    """Forward connections to a port of this machine for the block."""
    line = Line(writers=set())
    loop = asyncio.new_event_loop()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                while line.frozen:  # noqa: ASYNC110 - set by another thread
                    await asyncio.sleep(0.02)
                writer.write(data)
        except OSError:
            pass
        finally:
            writer.close()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner, outer = await asyncio.open_connection("127.0.0.1", port)
        assert line.writers is not None
        line.writers |= {writer, outer}
        await asyncio.gather(pump(reader, outer), pump(inner, writer))

    async def serve() -> asyncio.Server:
        return await asyncio.start_server(take, "127.0.0.1", 0)

    server = loop.run_until_complete(serve())
    line.port = server.sockets[0].getsockname()[1]
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield line
    finally:
        line.frozen = False

        async def end() -> None:
            server.close()
            for writer in line.writers or ():
                writer.transport.abort()
            await asyncio.sleep(0.1)
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


PORTS = {"rabbitmq": places.RABBITMQ_PORT, "sqs": places.SQS_PORT}


def key_of(took: Took) -> bytes:
    """Answer the key that a bus without keys has in a header."""
    key = dict(took.headers)["penstock-key"]
    return key.encode() if isinstance(key, str) else bytes(key)


@pytest.mark.breaks("the way to RabbitMQ or SQS, while a replay sends there")
@pytest.mark.parametrize("kind", list(PORTS))
@pytest.mark.parametrize("how", ["freeze", "cut"])
def test_a_bus_that_stops_answering_is_a_retry_and_is_found_again(kind, how: str) -> None:
    """Each event is answered in time, closing does not wait, and sending goes on afterwards."""

    async def main(target: Target, line: Line) -> tuple[list[list[Outcome]], float]:
        outcomes = [list(await target.send(messages(0, 10)))]
        batch = messages(10, 10)
        line.frozen = True
        if how == "cut":
            sending = asyncio.ensure_future(target.send(batch))
            await asyncio.sleep(0.2)
            for writer in list(line.writers or ()):
                writer.transport.abort()
            happened("cut connections", len(line.writers or ()) // 2)
            outcomes.append(list(await sending))
        else:
            happened("outages")
            outcomes.append(list(await target.send(batch)))
        line.frozen = False
        outcomes.append(list(await target.send(batch)))
        line.frozen = True
        begun = time.monotonic()
        await target.close()
        return outcomes, time.monotonic() - begun

    with far_side(kind) as far, line_to(PORTS[kind]) as line:
        far.url = far.url.replace(f":{PORTS[kind]}", f":{line.port}")
        far.guard = Guard((HERE,), (line.port,))
        outcomes, closing = asyncio.run(main(far.open(timeout=1.5), line))
        took = far.took(30, patience=5)

    kinds = [{type(each) for each in some} for some in outcomes]
    assert kinds == [{Delivered}, {Retry}, {Delivered}]
    assert closing < 3
    told = {n: b"k%d" % (n % 3) for n in range(20)}
    held = [(int(each.payload), key_of(each)) for each in took]
    # Of what was sent once more the bus may have taken the first.
    found(receiver=compare(told, held, most_again=10))
