"""What was freed goes back to the system, where the C library is glibc.

The numbers are those of glibc's mallopt(3).
"""

from __future__ import annotations

import ctypes
import gc
import threading
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager

_GIVE_BACK_SECONDS = 10.0

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8

_ALL_SHARE_ONE_HEAP = 1
_SMALLEST_OUTSIDE_BYTES = 1 << 20

_KEPT_BYTES = 64 << 20
_LARGEST_REUSED_BYTES = 32 << 20


def keep_little(environment: MutableMapping[str, str]) -> None:
    """Have this process and those that get its environment keep little of what they freed.

    Unless the environment says otherwise, Arrow takes its memory from the C library, all threads
    share one of its heaps, and blocks of a megabyte or more are in none. For before there are
    threads, and before Arrow is imported.

    Arrow's own allocators keep what was freed, for each thread, and cannot be told to give up that
    of others. glibc has up to eight heaps for each core: what is small and stays lies scattered
    over what was freed in each of them, and holds its pages. And it puts blocks of up to 32 MiB
    into them once it has freed such, which scatters the small ones as well.
    """
    environment.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    for name, option, value in (
        ("MALLOC_ARENA_MAX", _M_ARENA_MAX, _ALL_SHARE_ONE_HEAP),
        ("MALLOC_MMAP_THRESHOLD_", _M_MMAP_THRESHOLD, _SMALLEST_OUTSIDE_BYTES),
    ):
        if name not in environment:
            environment[name] = str(value)
            # glibc has read the environment when this process began.
            _set_option(option, value)


@contextmanager
def giving_back(every: float = _GIVE_BACK_SECONDS) -> Iterator[None]:
    """Give back what is free for the block, `every` so many seconds and at its end.

    Python by itself looks for cycles that nobody refers to when there are a quarter as many new
    objects as old ones: megabytes wait for minutes. Looked for among the new ones alone, which
    takes some milliseconds, they are gone.

    glibc by itself gives back only what is at the end of a heap: after a few blocks of 100 MiB it
    keeps half a gigabyte in pieces for ever. Giving back takes 30 ms then, else 0.1.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) or (lambda _: None)
    over = threading.Event()
    if not gc.get_freeze_count():
        # Modules and what they made stay, and are looked at no more.
        gc.collect()
        gc.freeze()

    def give_back() -> None:
        gc.collect()
        trim(0)

    def go_on() -> None:
        while not over.wait(every):
            give_back()

    thread = threading.Thread(target=go_on, name="memory", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        give_back()


def reuse_memory() -> None:
    """Let freed memory be used again before it is given back.

    glibc gives blocks over 128 KiB back when they are freed, and a batch's body, lines and log
    records are such blocks: 200 page faults a request, a seventh of the time of a batch of 700 kB.

    All threads that come from now on share two heaps: but for the first one, each keeps up to as
    much as may be used again at its end for ever, and there would be eight for each core.
    """
    _set_option(_M_ARENA_MAX, 2)
    _set_option(_M_TRIM_THRESHOLD, _KEPT_BYTES)
    _set_option(_M_MMAP_THRESHOLD, _LARGEST_REUSED_BYTES)


def _set_option(option: int, value: int) -> None:
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(option, value)
