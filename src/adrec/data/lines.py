"""Splitting of a byte stream into chunks at line ends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from adrec.data.source import Source

CHUNK_BYTES = 1 << 24
LONGEST_LINE = 1 << 25  # bytes; no interaction is this long, and several copies must fit in memory
KEPT_OF_LONG = 1000
BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Chunk:
    """A block of complete lines.

    Attributes:
        content: bytes of the lines, each with its ``\\n``.
        first_line: number of the first line, from 1.
        too_long: the chunk is the start of a single line longer than :data:`LONGEST_LINE`.
    """

    content: bytes
    first_line: int
    too_long: bool = False


def chunks(source: Source) -> Iterator[Chunk]:
    """Yield the lines of ``source``. A byte order mark is removed, and a missing last line end is added."""
    held, line, skipping = b"", 1, False
    for number, block in enumerate(source.blocks(CHUNK_BYTES)):
        held += block.removeprefix(BOM) if number == 0 else block
        if skipping:
            end = held.find(b"\n")
            held, skipping = (held[end + 1 :], False) if end >= 0 else (b"", True)
        end = held.rfind(b"\n") + 1
        if end:
            yield Chunk(held[:end], line)
            line += held.count(b"\n", 0, end)
            held = held[end:]
        elif len(held) > LONGEST_LINE:
            yield Chunk(held[:KEPT_OF_LONG], line, too_long=True)
            line, held, skipping = line + 1, b"", True
    if held:
        yield Chunk(held + b"\n", line)


def head_chunk(source: Source) -> Chunk:
    """Return the complete lines at the start of ``source``, without reading on."""
    content = source.head.removeprefix(BOM)
    return Chunk(content[: content.rfind(b"\n") + 1] or content + b"\n", 1)


def shown(line: bytes) -> str:
    """Return a line as text; bytes that are not UTF-8 are escaped as ``\\xff``."""
    return line.decode(errors="backslashreplace").rstrip("\r\n")


def lines_at(content: bytes, rows: Sequence[int]) -> list[str]:
    """Return the lines at the indices ``rows`` as texts, without decoding the others."""
    ends = np.flatnonzero(np.frombuffer(content, dtype=np.uint8) == ord("\n"))
    return [shown(content[ends[row - 1] + 1 if row else 0 : ends[row]]) for row in rows]
