"""Files of text, whatever their form, cut into pieces that processes read one by one."""

from __future__ import annotations

import bz2
import csv
import glob
import gzip
import io
import lzma
import os
import stat
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from distcorpus.algorithms import _csv_kernels
from distcorpus.corpora.unfinished import KINDS

#: Bytes of text of a piece: what a process has in memory at once.
PIECE = 8 << 20
#: Bytes that a document may have, with whatever else is in its record.
LARGEST_RECORD = 32 << 20
TOO_LONG = f"a record is longer than {LARGEST_RECORD >> 20} MB, the most that a document can have: divide it"
TOO_LONG_CSV = f"{TOO_LONG}; or is a quote missing that ends a field?"
#: Bytes of CSV for which compiled code is loaded.
WORTH_COMPILING = 1 << 16
#: Files of a piece, where each is a document.
FILES_AT_ONCE = 4096
#: How much longer a text is than what is stored of it, where it is compressed.
TIMES_AS_LONG = 4
#: Rows of a table that are read at once.
ROWS_AT_ONCE = 1024
#: Rows that show how long texts are.
PROBED = 16

#: What a path has that stands for several.
GLOB = "*?["

#: What a file's name ends with, after the suffix of its compression, and its form.
FORMS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
}
FORMATS = ("lines", "files", "jsonl", "csv", "tsv", "parquet", "arrow")
TABLES = ("parquet", "arrow")
DELIMITERS = {"csv": ",", "tsv": "\t"}
COMPRESSIONS = {".gz": "gzip", ".bz2": "bzip2", ".zst": "zstd", ".xz": "xz"}
#: What files end with that are compressed, or hold others, in a way that is not read.
UNREADABLE = {".zip", ".7z", ".rar", ".tar", ".tgz", ".lz4", ".z", ".br", ".lzma"}
#: What a file raises that is damaged, or that a decompressor cannot read.
_DAMAGE = (OSError, ValueError, zlib.error, lzma.LZMAError)
#: The descriptors of a process, which are others in another process.
_DESCRIPTORS = ("/dev/stdin", "/dev/fd/", "/proc/self/fd/")
#: What tells in a file system of fsspec's that a file has changed.
_STAMPS = ("ETag", "mtime", "LastModified", "last_modified", "created", "CRC")


class InputError(ValueError):
    """A file, or a record of it, is no text that can be read; the message names the file and the line."""


@dataclass(frozen=True)
class Input:
    """A file.

    Attributes
    ----------
    path : str
        On this machine, or a URL that fsspec knows.
    form : str
        One of `FORMATS`.
    size : int
        Bytes, as it is stored.
    stamp : str
        Changes when the file does.
    """

    path: str
    form: str
    size: int
    stamp: str

    @property
    def compression(self) -> str | None:
        """How it is compressed."""
        return COMPRESSIONS.get(_suffixes(self.path)[1])

    @property
    def is_of_this_process(self) -> bool:
        """Whether no other process has it."""
        return "memory://" in self.path


@dataclass(frozen=True)
class Piece:
    """Some records of an input, or some inputs of a record each.

    Attributes
    ----------
    source : int
        The number of the (first) input.
    content : bytes, (int, int), tuple of Input, or pyarrow.RecordBatch
        The records; the range of bytes that they are in a file of this machine; the files.
    read : int
        Bytes of the inputs that are read after this piece.
    header : tuple of str
        The columns' names, where the input is CSV.
    skip : int
        Lines that the header takes, at the beginning of this piece.
    first : bool
        The input begins here.
    too_long : int
        The lines of a record that is too long, where the piece stands for one.
    """

    source: int
    content: Any
    read: int
    header: tuple[str, ...] = ()
    skip: int = 0
    first: bool = False
    too_long: int = 0


def needs(name: str) -> Any:
    """Import a module of the extra ``corpus``.

    Raises
    ------
    RuntimeError
        If it is not installed.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError:
        package = name.partition(".")[0]
        raise RuntimeError(f'this needs {package}: pip install "distcorpus[corpus]"') from None


def find(paths: Sequence[str | os.PathLike[str]], form: str | None = None) -> list[Input]:
    """Return the files that paths name: files, folders (all files in them, by name), URLs and their globs.

    Raises
    ------
    InputError
        If there is none.
    """
    if form is not None and form not in FORMATS:
        raise ValueError(f"format={form!r}: there are {', '.join(FORMATS)}")
    found = [file for path in paths for file in _files(os.fspath(path))]
    return [Input(path, form or _form(path), size, stamp) for path, size, stamp in found]


def _form(path: str) -> str:
    stem, suffix = _suffixes(path)
    return FORMS.get(os.path.splitext(stem)[1] if suffix in COMPRESSIONS else suffix, "lines")


def _suffixes(path: str) -> tuple[str, str]:
    """Return a file's name in two: before its suffix, and this; of "zip://a.txt::file:///b.zip" a.txt's."""
    if "://" in path:
        path = next(part for part in path.split("::") if "://" in part)
    return os.path.splitext(path.lower())


def _files(path: str) -> Iterator[tuple[str, int, str]]:
    if "://" in path:
        yield from _of_url(path)
        return
    if os.path.abspath(path).startswith(_DESCRIPTORS):
        raise InputError(f"{path} is of this process, and others read the inputs too: give the file itself")
    if any(sign in path for sign in GLOB) and not os.path.exists(path):
        names = sorted(glob.glob(path, recursive=True))
        if not names:
            raise InputError(f"there is no file {path}")
        for name in names:
            yield from _files(name)
        return
    names = _in_folder(str(Path(path))) if os.path.isdir(path) else [path]
    if not names:
        raise InputError(f"there is no file in the folder {path}")
    for name in names:
        status = _told(name, os.stat, name)
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{name} is no regular file: write what it gives to one, and give that")
        yield name, status.st_size, str(status.st_mtime_ns)


def _of_url(path: str) -> Iterator[tuple[str, int, str]]:
    """Yield the files that a URL names, as `_files` does."""
    core = needs("fsspec.core")
    try:
        files, name = core.url_to_fs(path)
        names = sorted(files.glob(name)) if any(sign in path for sign in GLOB) else [name]
        found = False
        for name in names:
            about = files.info(name)
            infos = [about] if about["type"] != "directory" else _in_folder_of(files, name)
            for about in infos:
                stamp = next((str(about[key]) for key in _STAMPS if about.get(key)), "")
                yield _url_of(path, files, about["name"]), int(about.get("size") or 0), stamp
                found = True
    except Exception as error:  # of many libraries, some of which are not installed
        raise InputError(f"{path} cannot be read: {str(error) or type(error).__name__}") from error
    if not found:
        raise InputError(f"there is no file {path}")


def _in_folder_of(files: Any, name: str) -> list[dict[str, Any]]:
    """Return what a file system of fsspec's knows of the files in a folder, as `_in_folder` chooses them."""
    of_folders: dict[str, list[str]] = {}
    found = files.find(name, detail=True)
    for file in found:
        folder, _, last = file.rpartition("/")
        of_folders.setdefault(folder, []).append(last)
    made = tuple(f"{folder}/" for folder, names in of_folders.items() if _is_of_a_corpus(folder, names))
    root = name.rstrip("/")
    return [
        found[file]
        for file in sorted(found)
        if not file.startswith(made) and "/." not in "/" + file.removeprefix(root)
    ]


def _url_of(path: str, files: Any, name: str) -> str:
    """Return the URL of a file that was found by a URL, which may be a chain ("zip://*::s3://b/a.zip")."""
    if "::" not in path:
        return str(files.unstrip_protocol(name))
    parts = path.split("::")
    number = next(number for number, part in enumerate(parts) if "://" in part)
    protocol = parts[number].partition("://")[0]
    parts[number] = name if "://" in name else f"{protocol}://{name}"
    return "::".join(parts)


def _in_folder(path: str, above: tuple[tuple[int, int], ...] = ()) -> list[str]:
    """Return the files in a folder, in their order, but hidden ones and what this library has made."""
    status = _told(path, os.stat, path)
    this = status.st_dev, status.st_ino
    names = _told(path, os.listdir, path)
    if this in above or _is_of_a_corpus(path, names):  # a link may lead back
        return []
    found = []
    for name in sorted(names):
        if not name.startswith("."):
            entry = os.path.join(path, name)
            found += _in_folder(entry, (*above, this)) if os.path.isdir(entry) else [entry]
    return found


def _is_of_a_corpus(folder: str, files: list[str]) -> bool:
    """Return whether a folder is a corpus, or what the build of one has left."""
    return {"manifest.json", "document-frequencies.npy"} <= {*files} or any(
        kind.marks(folder, files) for kind in KINDS
    )


def _told(path: str, function: Callable[[str], Any], name: str) -> Any:
    try:
        return function(name)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {_reason(error)}") from error


@contextmanager
def opened(source: Input) -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """Open an input: as the bytes that it stands for, and as those that are stored.

    Raises
    ------
    InputError
        If it cannot be read, or, also later, if it is cut off or damaged.
    """
    suffix = _suffixes(source.path)[1]
    if suffix in UNREADABLE:
        raise InputError(f"{source.path}: {suffix} files are not read: unpack it, or compress it as .gz")
    is_remote = "://" in source.path
    # What libraries of remote file systems raise is of no common kind.
    kinds: tuple[type[Exception], ...] = (Exception,) if is_remote else _DAMAGE
    stored: Any
    try:
        if is_remote:
            # An archive is closed when nothing refers to its file system any more.
            files, name = needs("fsspec.core").url_to_fs(source.path)
            stored = files.open(name, "rb")
        else:
            stored = open(source.path, "rb")  # noqa: SIM115 - closed below
    except kinds as error:
        raise InputError(f"{source.path} cannot be read: {_reason(error)}") from error
    with stored:
        try:
            yield _plain(stored, source.compression), stored
        except InputError:
            raise
        except EOFError:
            raise InputError(f"{source.path} is cut off: fetch it again") from None
        except kinds as error:
            if "Truncated" in str(error):
                raise InputError(f"{source.path} is cut off: fetch it again") from None
            raise InputError(f"{source.path} cannot be read: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):  # of some file systems it says only the name
        return "No such file or directory"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _plain(stored: Any, compression: str | None) -> Any:
    if compression == "gzip":
        return gzip.GzipFile(fileobj=stored)
    if compression == "bzip2":
        return bz2.BZ2File(stored)
    if compression == "xz":
        return lzma.LZMAFile(stored)
    if compression == "zstd":
        pyarrow = needs("pyarrow")
        return pyarrow.CompressedInputStream(pyarrow.PythonFile(stored, "r"), "zstd")
    return stored


def pieces(sources: Sequence[Input], columns: Sequence[str]) -> Iterator[Piece]:
    """Cut inputs into pieces, in their order.

    Where they are cut follows from the files alone. What is plain and on this machine is not read here.

    Parameters
    ----------
    sources : sequence of Input
    columns : sequence of str
        The columns of tables that are read.

    Raises
    ------
    InputError
        If an input cannot be read, or has nothing in it.
    """
    before, number = 0, 0
    while number < len(sources):
        source = sources[number]
        if source.form == "files":
            end, size = number, 0
            while end < len(sources) and end - number < FILES_AT_ONCE and sources[end].form == "files":
                size += sources[end].size * (TIMES_AS_LONG if sources[end].compression else 1)
                if size > PIECE and end > number:
                    break
                end += 1
            group = tuple(sources[number:end])
            before += sum(one.size for one in group)
            yield Piece(number, group, before)
            number = end
            continue
        empty = True
        for piece in _cutter(source)(source, number, before, columns):
            empty = False
            yield piece
        if empty:
            raise InputError(f"{source.path} is empty: leave it out")
        before += source.size
        number += 1


def _cutter(source: Input) -> Callable[[Input, int, int, Sequence[str]], Iterator[Piece]]:
    if source.form in TABLES:
        return _rows
    if source.form in DELIMITERS:
        return _records
    return _ranges if source.compression is None and "://" not in source.path else _blocks


def _ranges(source: Input, number: int, before: int, columns: Sequence[str]) -> Iterator[Piece]:
    """Cut a file of lines where lines end; only what is about the cuts is read."""
    with opened(source) as (file, _):
        start = 0
        while start < source.size:
            file.seek(start + PIECE)
            line = file.readline(LARGEST_RECORD + 1)
            end = start + PIECE + len(line)
            too_long = len(line) > LARGEST_RECORD and not line.endswith(b"\n")
            if too_long:  # what is before it is read, and then it is passed over
                file.seek(start)
                end = start + file.read(PIECE).rfind(b"\n") + 1
            end = min(end, source.size)
            if end > start:
                yield Piece(number, (start, end), before + end, first=start == 0)
            if too_long:
                file.seek(end)
                end += _skipped(file)
                yield Piece(number, b"", before + end, too_long=1)
            start = end


def _skipped(file: BinaryIO) -> int:
    """Read to the end of a line, which may not fit into the memory, and return how many bytes that were."""
    size = 0
    while line := file.readline(PIECE):
        size += len(line)
        if line.endswith(b"\n"):
            break
    return size


def _blocks(source: Input, number: int, before: int, columns: Sequence[str]) -> Iterator[Piece]:
    """Read a file of lines, and cut it where lines end."""
    with opened(source) as (file, stored):
        first, rest = True, b""
        while True:
            block = file.read(PIECE)
            content = rest + block
            end = content.rfind(b"\n") + 1 if block else len(content)
            if end:
                yield Piece(number, content[:end], before + _read(source, stored), first=first)
                first = False
            if not block:
                return
            rest = content[end:]
            if len(rest) > LARGEST_RECORD:
                while block and b"\n" not in block:
                    block = file.read(PIECE)
                rest = block[block.find(b"\n") + 1 :]
                first = False
                yield Piece(number, b"", before + _read(source, stored), too_long=1)


def _read(source: Input, stored: BinaryIO) -> int:
    return min(stored.tell(), source.size)


def _records(source: Input, number: int, before: int, columns: Sequence[str]) -> Iterator[Piece]:
    """Read a CSV file, and cut it where records end."""
    delimiter = ord(DELIMITERS[source.form])
    header: tuple[str, ...] = ()
    with opened(source) as (file, stored):
        first, rest = True, b""
        block = file.read(PIECE).removeprefix(b"\xef\xbb\xbf")
        while content := rest + block:
            ends, _ = _ends_of_records(content, delimiter)
            if not block:  # the last record may have no line's end
                ends = np.union1d(ends, len(content))
            long = np.diff(ends, prepend=0) > LARGEST_RECORD
            fitting = ends[: np.argmax(long)] if long.any() else ends
            end = int(fitting[-1]) if len(fitting) else 0
            if end:
                skip = 0
                if first:
                    header, skip = _header(source, content[:end])
                    _need(source.path, columns, header)
                yield Piece(number, content[:end], before + _read(source, stored), header, skip, first)
                first = False
            rest = content[end:]
            if long.any() or len(rest) > LARGEST_RECORD:
                if first:
                    raise InputError(f"{source.path}:1: {TOO_LONG_CSV}")
                rest, lines = _passed(file, rest, delimiter)
                yield Piece(number, b"", before + _read(source, stored), too_long=lines)
            block = file.read(PIECE)


def _passed(file: BinaryIO, block: bytes, delimiter: int) -> tuple[bytes, int]:
    """Read to the end of a CSV record, which may not fit into the memory.

    Returns
    -------
    rest : bytes
        What was read of the records after it.
    lines : int
        How many lines it has.
    """
    state, lines, last = _csv_kernels.BEGIN, 0, b""
    while block:
        ends, state = _ends_of_records(block, delimiter, state, 1)
        record = block[: ends[0]] if len(ends) else block
        lines += _line_ends(last + record) - _line_ends(last)
        last = record[-1:] or last
        if len(ends):
            return block[len(record) :], lines
        block = file.read(PIECE)
    return b"", lines + (last not in (b"\r", b"\n"))


def _line_ends(content: bytes) -> int:
    return content.count(b"\n") + content.count(b"\r") - content.count(b"\r\n")


def _ends_of_records(
    content: bytes, delimiter: int, state: int = _csv_kernels.BEGIN, most: int | None = None
) -> tuple[NDArray[np.int64], int]:
    """Return where the records of CSV end, at most so many, and the state after all, see `find_records`."""
    small = len(content) < WORTH_COMPILING
    find = _csv_kernels.find_records if small else _csv_kernels.compiled_finder()
    ends = np.empty(most or content.count(b"\n") + content.count(b"\r") + 1, np.int64)
    count, state = find(np.frombuffer(content, np.uint8), state, delimiter, ends)
    return ends[:count], state


def warm() -> None:
    """Load the compiled code, or compile it."""
    _ends_of_records(bytes(WORTH_COMPILING), 0)


def _header(source: Input, content: bytes) -> tuple[tuple[str, ...], int]:
    """Return the columns' names of a CSV file, and how many lines they take."""
    text = content[:LARGEST_RECORD].decode("utf-8-sig", "replace")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=DELIMITERS[source.form], strict=True)
    try:
        return tuple(next(reader, ())), reader.line_num
    except csv.Error as error:
        raise InputError(f"{source.path}:1: {error}") from None


def _rows(source: Input, number: int, before: int, columns: Sequence[str]) -> Iterator[Piece]:
    """Read some columns of a table."""
    pyarrow = needs("pyarrow")
    with opened(source) as (file, stored):
        waiting: list[Any] = []
        size = 0

        def piece() -> Piece:
            rows = pyarrow.Table.from_batches(waiting).combine_chunks().to_batches()[0]
            return Piece(number, rows, before + min(stored.tell(), source.size))

        batches = _of_parquet if source.form == "parquet" else _of_arrow
        for whole in batches(source.path, file, columns):
            for batch in _cut(whole):
                waiting.append(batch)
                size += batch.nbytes
                if size >= PIECE:
                    yield piece()
                    waiting.clear()
                    size = 0
        if waiting:
            yield piece()


def _of_parquet(path: str, file: BinaryIO, columns: Sequence[str]) -> Iterator[Any]:
    """Read some columns of a Parquet file, so many rows at once as are of about the bytes of a piece."""
    table = needs("pyarrow.parquet").ParquetFile(file, buffer_size=1 << 20)
    _need(path, columns, table.schema_arrow.names)
    for number in range(table.num_row_groups):
        rows = _rows_at_once(table, number, columns)
        yield from table.iter_batches(rows, row_groups=[number], columns=list(columns))


def _rows_at_once(table: Any, number: int, columns: Sequence[str]) -> int:
    group = table.metadata.row_group(number)
    parts = [group.column(n) for n in range(group.num_columns)]
    size = sum(part.total_uncompressed_size for part in parts if part.path_in_schema in columns)
    rows = PIECE * group.num_rows // max(size, 1)
    if min(rows, ROWS_AT_ONCE) * size > PIECE:
        # A text that many rows have may be stored once: how long texts are some rows show.
        first = next(table.iter_batches(PROBED, row_groups=[number], columns=list(columns)), None)
        if first is not None:
            rows = min(rows, PIECE * first.num_rows // max(first.nbytes, 1))
    return max(1, min(ROWS_AT_ONCE, rows))


def _of_arrow(path: str, file: BinaryIO, columns: Sequence[str]) -> Iterator[Any]:
    """Read some columns of an Arrow file or stream, in the batches that it has."""
    pyarrow = needs("pyarrow")
    try:
        table = pyarrow.ipc.open_file(file)
    except pyarrow.ArrowInvalid:
        file.seek(0)
        table = pyarrow.ipc.open_stream(file)
    _need(path, columns, table.schema.names)
    if hasattr(table, "num_record_batches"):
        batches = (table.get_batch(n) for n in range(table.num_record_batches))
    else:
        batches = iter(table)
    for batch in batches:
        yield batch.select(list(columns))


def _cut(batch: Any) -> Iterator[Any]:
    """Cut rows so that the texts of not too many have about the bytes of a piece."""
    lengths = sum((_lengths(column) for column in batch.columns), np.zeros(batch.num_rows, np.int64))
    ends = np.cumsum(lengths)
    start = 0
    while start < batch.num_rows:
        room = PIECE + (ends[start - 1] if start else 0)
        stop = max(start + 1, int(np.searchsorted(ends, room, "right")))
        part = batch.slice(start, min(stop - start, ROWS_AT_ONCE))
        yield part
        start += part.num_rows


def _lengths(column: Any) -> NDArray[np.int64]:
    """Return the bytes of each text of a column; 0 of what is no text."""
    pyarrow, compute = needs("pyarrow"), needs("pyarrow.compute")
    types = pyarrow.types
    if not (types.is_string(column.type) or types.is_large_string(column.type)):
        return np.zeros(len(column), np.int64)
    lengths = compute.binary_length(column).fill_null(0).to_numpy(zero_copy_only=False)
    return np.asarray(lengths, np.int64)


def _need(path: str, columns: Sequence[str], names: Sequence[str]) -> None:
    for column in columns:
        if column not in names:
            raise InputError(f"{path}: {no_field(column, names)}")
        if list(names).count(column) > 1:
            raise InputError(f"{path}: several fields are called {column!r}: give each a name of its own")


def no_field(field: str, names: Sequence[str]) -> str:
    """Say that a record has not got a field."""
    there = ", ".join(map(repr, list(names)[:8])) or "none"
    return f"there is no field {field!r} (there are {there}): name the one of the text, or of the id"
