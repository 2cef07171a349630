"""Byte streams of files, folders of shards and standard input, compressed or not."""

from __future__ import annotations

import codecs
import gzip
import hashlib
import io
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, BinaryIO, cast
from urllib.parse import unquote

import zstandard

from adrec.utils.errors import DataError
from adrec.utils.text import counted

STDIN = Path("-")
COMPRESSION = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
UNREAD = {
    b"PK\x03\x04": "a zip archive or a workbook",
    **{b"BZh%d1AY&SY" % level: "packed with bzip2" for level in range(1, 10)},
    b"\xfd7zXZ\x00": "packed with xz",
    b"SQLite format 3\x00": "an SQLite database, which --query and the URL sqlite:///PATH read",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
}
COMPRESSED_ENDINGS = (".gz", ".gzip", ".zst", ".zstd")
SHARD_ENDINGS = (".csv", ".tsv", ".txt", ".inter", ".dat", ".data", ".parquet", ".pq", ".json", ".jsonl", ".ndjson")
PARQUET = b"PAR1"
HEAD_BYTES = 1 << 16
ZSTD_FEED = 256  # compressed bytes per step; they decompress to 8 MiB or so at most


class _Hashing(io.RawIOBase):
    """Hashes a stream as it is read."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream, self.hasher = stream, hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        content = self.stream.read(len(buffer))
        buffer[: len(content)] = content
        self.hasher.update(content)
        return len(content)


class _Zstd(io.RawIOBase):
    """Decompresses zstd frame by frame; zstandard's own reader accepts a truncated frame as complete."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream, self.packed, self.unpacked = stream, b"", b""
        self.frame: zstandard.ZstdDecompressionObj | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        while not self.unpacked and self._take():
            pass
        content, self.unpacked = self.unpacked[: len(buffer)], self.unpacked[len(buffer) :]
        buffer[: len(content)] = content
        return len(content)

    def _take(self) -> bool:
        """Decompress the next input; return whether there was any. Raises EOFError if the input ends within a frame."""
        self.packed = self.packed or self.stream.read(ZSTD_FEED)
        if not self.packed:
            if self.frame is not None:
                raise EOFError
            return False
        self.frame = self.frame or zstandard.ZstdDecompressor().decompressobj()
        self.unpacked = self.frame.decompress(self.packed)
        self.packed = self.frame.unused_data
        if self.frame.eof:
            self.frame = None
        return True


class _Recoded(io.RawIOBase):
    """Converts text in another encoding to UTF-8."""

    def __init__(self, stream: IO[bytes], encoding: str) -> None:
        self.stream, self.text = stream, b""
        self.decoder = codecs.getincrementaldecoder(encoding)()
        self.ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        while not self.text and not self.ended:
            content = self.stream.read(HEAD_BYTES)
            self.ended = not content
            self.text = self.decoder.decode(content, final=self.ended).encode()
        part, self.text = self.text[: len(buffer)], self.text[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)


@dataclass
class Source:
    """One file, or standard input, which can be read once.

    Attributes:
        path: path of the file, ``-`` for standard input.
        name: name in messages.
        head: its first bytes, decompressed.
        compression: ``gzip``, ``zstd`` or None, detected from the first bytes, not from the name.
        sha256: SHA-256 of the bytes on disk, after all of them were read.
        encoding: its encoding, if it is converted to UTF-8.
    """

    path: Path
    name: str
    head: bytes = b""
    compression: str | None = None
    sha256: str | None = None
    encoding: str | None = None
    _stream: IO[bytes] | None = field(default=None, repr=False)
    _hashing: _Hashing | None = field(default=None, repr=False)

    @classmethod
    def open(cls, path: Path, encoding: str | None = None) -> Source:
        """Open a file, or standard input for ``-``; text in another ``encoding`` is converted to UTF-8.

        Raises :class:`DataError` where it cannot be read or is empty.
        """
        source = cls(path, "standard input" if path == STDIN else str(path))
        if path == STDIN and sys.stdin is None:
            raise DataError("standard input is closed; pipe a table into it, or name a file.")
        with source.unharmed():
            try:
                raw = sys.stdin.buffer if path == STDIN else path.open("rb")
            except FileNotFoundError as error:
                raise DataError(f"there is no file {path}; check the path.") from error
            source._hashing = _Hashing(cast(BinaryIO, raw))
            buffered = io.BufferedReader(source._hashing, HEAD_BYTES)
            magic = buffered.peek(4)
            if not magic:
                raise DataError(f"{source.name} is empty; give a table with rows.")
            source.compression = next((kind for start, kind in COMPRESSION.items() if magic.startswith(start)), None)
            stream: IO[bytes] = buffered
            if source.compression == "gzip":
                stream = cast(IO[bytes], gzip.GzipFile(fileobj=buffered))
            elif source.compression == "zstd":
                stream = io.BufferedReader(_Zstd(buffered), HEAD_BYTES)
            if encoding is not None and not buffered.peek(4).startswith(PARQUET):
                source.encoding = encoding
                stream = io.BufferedReader(_Recoded(stream, encoding), HEAD_BYTES)
            source.head = _read_up_to(stream, HEAD_BYTES)
            source._stream = stream
        if not source.head:
            raise DataError(f"{source.name} is compressed, and empty; give a table with rows.")
        unread = next((what for start, what in UNREAD.items() if source.head.startswith(start)), None)
        if unread is not None:
            raise DataError(
                f"{source.name} is not text but binary, {unread}; unpack it, or give CSV, TSV, JSON lines or Parquet "
                "(gzip and zstd are read as they are)."
            )
        return source

    @property
    def ending(self) -> str:
        """The ending of the name in lower case, without that of a compression: ``.csv``."""
        suffixes = [suffix.lower() for suffix in self.path.suffixes]
        while suffixes and suffixes[-1] in COMPRESSED_ENDINGS:
            suffixes.pop()
        return suffixes[-1] if suffixes else ""

    def blocks(self, size: int) -> Iterator[bytes]:
        """Yield the decompressed content, ``size`` bytes at a time; only once.

        Raises:
            DataError: where the file is cut short or damaged.
        """
        assert self._stream is not None and self._hashing is not None
        block = self.head
        while block:
            yield block
            with self.unharmed():
                block = _read_up_to(self._stream, size)
        self._hashing.read()
        self.sha256 = self._hashing.hasher.hexdigest()
        if self.path != STDIN:
            self._hashing.stream.close()

    @contextmanager
    def unharmed(self) -> Iterator[None]:
        """Convert errors while reading to :class:`DataError`."""
        try:
            yield
        except (EOFError, zlib.error, zstandard.ZstdError, gzip.BadGzipFile) as error:
            raise DataError(
                f"{self.name} is cut short or damaged ({self.compression} cannot decompress it); get it again."
            ) from error
        except UnicodeDecodeError as error:
            raise DataError(
                f"{self.name} is not {self.encoding} text ({error.reason}); name another encoding."
            ) from error
        except OSError as error:
            raise DataError(f"{self.name} cannot be read: {error.strerror or error}.") from error


def _read_up_to(stream: IO[bytes], size: int) -> bytes:
    """Return ``size`` bytes, fewer only at the end."""
    parts, missing = [], size
    while missing and (part := stream.read(missing)):
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


@dataclass(frozen=True)
class Shard:
    """A file to read.

    Attributes:
        path: its path.
        constants: columns that the names of its folders give, such as ``{"day": "2024-05-01"}`` of ``day=2024-05-01``.
    """

    path: Path
    constants: Mapping[str, str] = field(default_factory=dict)


def expand(paths: Sequence[Path]) -> tuple[list[Shard], list[str]]:
    """Return the files that ``paths`` name, with folders expanded to their shards, and notes on skipped files.

    In a folder, hidden files and files that start with ``_`` (markers of data-flow systems) are not shards. Folders in
    it are looked into if they are named like ``day=2024-05-01``, as Hive does.

    Raises:
        DataError: for no path, a folder without shards, or a duplicate file.
    """
    files: list[Shard] = []
    notes: list[str] = []
    for path in paths:
        if path == STDIN or not path.is_dir():
            files.append(Shard(path))
            continue
        if (path / "dataset.json").is_file():
            raise DataError(f"{path} is a prepared data set already; train on it, or name the table that it is from.")
        shards, others = _inside(path, {})
        parted = f" in folders by {', '.join(shards[0].constants)}" if shards[0].constants else ""
        notes.append(
            f"{path}: a folder of {len(shards)} shards{parted}" + (f", without {', '.join(others)}" if others else "")
        )
        files += shards
    if not files:
        raise DataError("no file is named; give a file, several, a folder of shards, or - for standard input.")
    names = [each.path for each in files]
    twice = next((path for at, path in enumerate(names) if path in names[:at]), None)
    if twice is not None:
        raise DataError(f"{twice} is named twice; its interactions would count twice.")
    return files, notes


def _inside(path: Path, constants: Mapping[str, str]) -> tuple[list[Shard], list[str]]:
    """Return the shards of a folder and of the folders in it that give columns, and the names of other files."""
    visible = sorted(each for each in path.iterdir() if each.name[0] not in "._")
    inside = [each for each in visible if each.is_file()]
    shards = [Shard(each, constants) for each in inside if _is_shard(each)]
    others = [each.name for each in inside if not _is_shard(each)]
    folders = [each for each in visible if each.is_dir()]
    if not shards and folders and all("=" in each.name for each in folders):
        for folder in folders:
            name, _, value = folder.name.partition("=")
            inner = {**constants, name: unquote(value)}
            found, also = _inside(folder, inner) if any(folder.iterdir()) else ([], [])
            shards, others = shards + found, others + also
    if shards:
        return shards, others
    if folders:
        some = ", ".join(each.name for each in folders[:3]) + (", .." if len(folders) > 3 else "")
        raise DataError(
            f"{path} has no table but {counted(len(folders), 'folder')} ({some}); name the one to read, or several: "
            "only folders such as day=2024-05-01 are looked into."
        )
    empty = "an empty folder" if not inside else "a folder without any table"
    raise DataError(f"{path} is {empty}; shards end in one of {', '.join(SHARD_ENDINGS)}, also with .gz or .zst.")


def _is_shard(path: Path) -> bool:
    return any(suffix.lower() in SHARD_ENDINGS for suffix in path.suffixes[-2:])
