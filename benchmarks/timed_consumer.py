"""Takes from a queue of RabbitMQ: `python -m benchmarks.timed_consumer URL QUEUE COUNT`.

It prints ``begun``, and then whenever so many have come one line of JSON: pairs of when the door
received the event, and the seconds at which it came here.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import aio_pika


async def _take(url: str, queue: str, count: int) -> None:
    came: list[tuple[str, float]] = []

    async def taken(message: aio_pika.abc.AbstractIncomingMessage) -> None:
        at = time.perf_counter()
        came.append((str(message.headers["penstock-received-at"]), at))
        if len(came) == count:
            print(json.dumps(came), flush=True)
            came.clear()

    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        await (await channel.get_queue(queue)).consume(taken, no_ack=True)
        print("begun", flush=True)
        await asyncio.Future()


if __name__ == "__main__":
    asyncio.run(_take(sys.argv[1], sys.argv[2], int(sys.argv[3])))
