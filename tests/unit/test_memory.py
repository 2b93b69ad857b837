"""What was freed goes back, also while something lies above it."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

# The blocks are too small for mappings of their own, and the last one stays: what is free lies
# below what is not.
HELD = """
import os
import time
from penstock.memory import keep_little, giving_back

keep_little(os.environ)
import pyarrow as pa

def held():
    with open("/proc/self/status") as lines:
        [line] = [line for line in lines if line.startswith("RssAnon")]
    return int(line.split()[1]) >> 10

with giving_back(every=0.05):
    assert pa.default_memory_pool().backend_name == "system"
    begun = held()
    blocks = [pa.allocate_buffer(100_000) for _ in range(1_000)]
    for block in blocks:
        memoryview(block).cast("B")[:] = bytes(100_000)
    full = held()
    del blocks[:-1], block
    deadline = time.monotonic() + 10
    while held() > begun + 15 and time.monotonic() < deadline:
        time.sleep(0.01)
    print(full - begun, held() - begun)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="needs glibc")
def test_what_arrow_freed_below_what_it_still_has_goes_back() -> None:
    """Glibc alone gives back what is at the end of its heap, other allocators what they like."""
    # In a process of its own: Arrow looks once where to take its memory from.
    ended = subprocess.run(
        [sys.executable, "-c", HELD], env=os.environ, check=True, capture_output=True, text=True
    )

    full, left = map(int, ended.stdout.split())
    assert full > 80
    assert left <= 15


CYCLE = """
import gc
import time
import weakref
from penstock.memory import giving_back

class Known:
    pass

gc.disable()
with giving_back(every=0.05):
    assert gc.get_freeze_count() > 1_000
    new = Known()
    new.itself = new
    known = weakref.ref(new)
    del new
    deadline = time.monotonic() + 10
    while known() is not None and time.monotonic() < deadline:
        time.sleep(0.01)
    print(known() is None)
before = gc.get_freeze_count()
with giving_back():
    print(gc.get_freeze_count() <= before)
"""


def test_what_nobody_refers_to_goes_although_it_refers_to_itself() -> None:
    """Without waiting for as much more of it as there is of everything; what is old stays out."""
    ended = subprocess.run(
        [sys.executable, "-c", CYCLE], env=os.environ, check=True, capture_output=True, text=True
    )

    assert ended.stdout.split() == ["True", "True"]


HEAPS = """
import ctypes
import os
import sys
from threading import Barrier, Thread
from penstock import memory

for said in sys.argv[2:]:
    match said:
        case "keep_little":
            memory.keep_little(os.environ)
        case "reuse_memory":
            memory.reuse_memory()
together = Barrier(4)
kept = []

def work():
    together.wait()
    kept.append([bytes(5_000) for _ in range(100)])
    together.wait()

threads = [Thread(target=work) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()

libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
told = ctypes.c_void_p(libc.fopen(sys.argv[1].encode(), b"w"))
libc.malloc_info(0, told)
libc.fclose(told)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_info"), reason="needs glibc")
def test_threads_share_as_many_heaps_as_they_are_told_to(tmp_path: Path) -> None:
    def heaps(*said: str, **environment: str) -> int:
        told = tmp_path / "told"
        given = {name: at for name, at in os.environ.items() if not name.startswith("MALLOC_")}
        command = [sys.executable, "-c", HEAPS, str(told), *said]
        subprocess.run(command, env=given | environment, check=True)
        return told.read_text().count("<heap nr=")

    assert heaps() > 2
    assert heaps("keep_little") == 1
    assert heaps("keep_little", MALLOC_ARENA_MAX="3") == 3
    assert heaps("keep_little", "reuse_memory") == 2
    assert heaps("reuse_memory") == 2
    assert heaps("reuse_memory", MALLOC_ARENA_MAX="1") == 2


LARGE = """
import ctypes
import os
import sys
from penstock.memory import keep_little

if sys.argv[2:]:
    keep_little(os.environ)
libc = ctypes.CDLL(None)
libc.malloc.restype = libc.fopen.restype = ctypes.c_void_p
libc.free(ctypes.c_void_p(libc.malloc(8 << 20)))
kept = [libc.malloc(2 << 20) for _ in range(10)]
told = ctypes.c_void_p(libc.fopen(sys.argv[1].encode(), b"w"))
libc.malloc_info(0, told)
libc.fclose(told)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_info"), reason="needs glibc")
def test_large_blocks_are_in_no_heap_although_a_larger_one_was_freed(tmp_path: Path) -> None:
    def outside(*said: str) -> int:
        told = tmp_path / "told"
        given = {name: at for name, at in os.environ.items() if not name.startswith("MALLOC_")}
        subprocess.run([sys.executable, "-c", LARGE, str(told), *said], env=given, check=True)
        [count] = re.findall('<total type="mmap" count="([0-9]+)"', told.read_text())
        return int(count)

    assert outside() < 10
    assert outside("keep_little") >= 10
