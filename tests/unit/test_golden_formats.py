"""What is on disks and wires is what was kept of it, and is read as it was meant."""

from __future__ import annotations

import pytest
from golden.formats import FORMATS, strangers
from golden.formats.given import Format, in_hex, of_hex

every = pytest.mark.parametrize("format_", FORMATS, ids=[one.name for one in FORMATS])


@every
def test_what_is_written_is_what_is_kept(format_: Format) -> None:
    """Somebody else reads it: another version, a relay, a receiver, whoever took a file away."""
    assert format_.kept_as(format_.write()).decode() == format_.file.read_bytes().decode()


@every
def test_what_is_kept_is_read_as_it_was_meant(format_: Format) -> None:
    """It was written by another version, or by somebody else."""
    assert format_.read(format_.kept()) == format_.means


def test_every_file_is_of_a_format() -> None:
    """One that nobody compares says nothing."""
    assert strangers() == set()


def test_hexadecimal_is_read_as_the_bytes_that_it_shows() -> None:
    data = bytes(range(256)) + b"the end"

    assert of_hex(in_hex(data)) == data
