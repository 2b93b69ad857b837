"""What Penstock writes on disks and wires, byte for byte, and what it reads in that.

`tests/golden/written` has a file for each format: what today's code writes of the input given here,
in which time, ids and chance are constants. Tests compare it with the file, and read the file. So a
format changes in one file that somebody has looked at, and never unseen.

Where such a test fails, think of who has the other half: a log or a cache that is older or newer
than the process, a relay, a receiver, a file that was taken away. Read the old form beside the new
one, or say in the changelog what it takes. Then write the file anew, which no test does by itself::

    PYTHONPATH=tests python -m golden.formats [NAME ...]

What is no text is kept in hexadecimal, so that a difference can be read.
"""

from __future__ import annotations

from golden.formats import door, index, log, replays
from golden.formats.given import WRITTEN, Format

FORMATS: tuple[Format, ...] = (*door.FORMATS, *log.FORMATS, *replays.FORMATS, *index.FORMATS)


def keep(names: list[str]) -> None:
    """Write the files of these formats anew, of all where none is named."""
    for one in FORMATS:
        if one.name in names or not names:
            one.file.write_bytes(one.kept_as(one.write()))


def strangers() -> set[str]:
    """Answer the files that are no format's."""
    return {file.name for file in WRITTEN.iterdir()} - {one.file.name for one in FORMATS}
