"""The records of a piece of text: their texts and ids, and what is wrong with those that have none."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from distcorpus.corpora.inputs import (
    DELIMITERS,
    LARGEST_RECORD,
    TABLES,
    TOO_LONG,
    TOO_LONG_CSV,
    Input,
    InputError,
    Piece,
    no_field,
    opened,
)

NOT_UNICODE = "the text is no UTF-8"


@dataclass(frozen=True)
class Fields:
    """Where a document's text is in its record, and its id, if it shall have one."""

    text: str = "text"
    id: str | None = None

    @property
    def names(self) -> list[str]:
        """The fields that are read."""
        return [self.text] if self.id in (None, self.text) else [self.text, self.id]


class Record(NamedTuple):
    """A document's text, or what is wrong with it.

    Attributes
    ----------
    line : int
        The line (the row of a table) that it ends in, from the piece's beginning, from 1; 0 for a whole file.
    text : str
    id : str
    problem : str
        Empty where there is none.
    where : str
        The file, where it is none of the piece's input.
    blank : bool
        The line has no record.
    """

    line: int
    text: str = ""
    id: str = ""
    problem: str = ""
    where: str = ""
    blank: bool = False


def records(piece: Piece, sources: Sequence[Input], fields: Fields) -> Iterator[Record]:
    """Yield the records of a piece, in their order.

    Raises
    ------
    InputError
        If the input cannot be read.
    """
    source = sources[piece.source]
    if piece.too_long:
        yield Record(1, problem=TOO_LONG_CSV if source.form in DELIMITERS else TOO_LONG)
        yield Record(piece.too_long, blank=True)
    elif source.form == "files":
        for one in piece.content:
            yield _of_file(one)
    elif source.form in TABLES:
        yield from _of_table(piece, fields)
    else:
        content = piece.content
        if isinstance(content, tuple):
            start, end = content
            with opened(source) as (file, _):
                file.seek(start)
                content = file.read(end - start)
            if len(content) < end - start:
                raise InputError(f"{source.path} has become shorter while it was read: build again")
        if source.form in DELIMITERS:
            yield from _of_csv(content, piece, fields, DELIMITERS[source.form])
            return
        lines = content.removeprefix(b"\xef\xbb\xbf" if piece.first else b"").split(b"\n")
        if not lines[-1]:
            lines.pop()
        of_line = _of_json if source.form == "jsonl" else _of_text
        for number, line in enumerate(lines, 1):
            if len(line) > LARGEST_RECORD:
                yield Record(number, problem=TOO_LONG)
            else:
                # Bytes that are no text become lone surrogates, which no document can have.
                yield of_line(number, line.decode("utf-8", "surrogateescape"), fields)


def _of_text(number: int, line: str, fields: Fields) -> Record:
    return Record(number, line)


def _of_json(number: int, line: str, fields: Fields) -> Record:
    if not line.strip():
        return Record(number, blank=True)
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        return Record(number, problem=f"this is no JSON: {error}")
    if not isinstance(values, dict):
        return Record(number, problem=f"this is a JSON {type(values).__name__}: give an object a line")
    return _of_values(number, values, fields)


def _of_csv(content: bytes, piece: Piece, fields: Fields, delimiter: str) -> Iterator[Record]:
    csv.field_size_limit(LARGEST_RECORD)
    file = io.TextIOWrapper(io.BytesIO(content), "utf-8", "surrogateescape", newline="")
    for _ in range(piece.skip):
        file.readline()
    yield Record(piece.skip, blank=True)
    reader = csv.reader(file, delimiter=delimiter, strict=True)
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Record(piece.skip + reader.line_num, problem=f"this is no CSV: {error}")
            continue
        number = piece.skip + reader.line_num
        if len(row) == len(piece.header):
            yield _of_values(number, dict(zip(piece.header, row, strict=True)), fields)
        elif not row:
            yield Record(number, blank=True)
        else:
            problem = f"there are {len(row)} fields, and {len(piece.header)} in the header"
            yield Record(number, problem=problem)


def _of_table(piece: Piece, fields: Fields) -> Iterator[Record]:
    columns = {name: piece.content.column(name).to_pylist() for name in fields.names}
    for number, values in enumerate(zip(*columns.values(), strict=True), 1):
        if any(isinstance(value, str) and _is_too_long(value) for value in values):
            yield Record(number, problem=TOO_LONG)
        else:
            yield _of_values(number, dict(zip(columns, values, strict=True)), fields)


def _is_too_long(text: str) -> bool:
    return len(text) > LARGEST_RECORD // 4 and len(text.encode("utf-8", "replace")) > LARGEST_RECORD


def _of_values(number: int, values: dict[str, Any], fields: Fields) -> Record:
    for name in fields.names:
        if name not in values:
            return Record(number, problem=no_field(name, list(values)))
    text = values[fields.text]
    if not isinstance(text, str):
        kind = "null" if text is None else f"a {type(text).__name__}"
        return Record(number, problem=f"the field {fields.text!r} is {kind}: it has to be a text")
    if fields.id is None:
        return Record(number, text)
    name = values[fields.id]
    if isinstance(name, bool) or not isinstance(name, str | int):
        kind = "null" if name is None else f"a {type(name).__name__}"
        return Record(
            number, problem=f"the field {fields.id!r} is {kind}: it has to be a text or whole number"
        )
    return Record(number, text, str(name))


def _of_file(source: Input) -> Record:
    with opened(source) as (file, _):
        content = file.read(LARGEST_RECORD + 1)
    if not content:
        return Record(0, problem="the file is empty", where=source.path)
    if len(content) > LARGEST_RECORD:
        return Record(0, problem=TOO_LONG, where=source.path)
    text = content.decode("utf-8-sig", "surrogateescape")
    try:
        source.path.encode()
    except UnicodeEncodeError:
        return Record(0, problem="the file's name is no UTF-8: rename it", where=source.path)
    return Record(0, text, source.path, where=source.path)
