"""Which words a dictionary has: frequencies of many pieces added up, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distcorpus.corpora.inputs import needs

#: Bytes that a word takes while the frequencies of many are added up.
WORD_BYTES = 200
#: Words that are read at once of frequencies that did not fit into the memory.
AT_ONCE = 1 << 16


class Vocabulary:
    """Adds up in how many documents each word is, and which is the first.

    Parameters
    ----------
    folder : Path
        What does not fit is written there.
    most : int
        Words that fit.
    """

    def __init__(self, folder: Path, most: int) -> None:
        self._folder = folder
        self._most = most
        self._tables: list[Any] = []
        self._rows = 0
        self._spilled: list[Path] = []
        for path in folder.glob("words-*.arrow"):
            path.unlink()

    def add(self, words: Any, documents: NDArray[np.int64], first: NDArray[np.int64]) -> None:
        """Add the words (Arrow strings) of a piece: in how many documents each is, and which is the first."""
        pyarrow = needs("pyarrow")
        columns = {"word": words.cast(pyarrow.large_string()), "documents": documents, "first": first}
        self._tables.append(pyarrow.table(columns))
        self._rows += len(words)
        if self._rows > self._most:
            merged = _merged(self._tables)
            if merged.num_rows > self._most // 2:
                self._spill(merged)
                self._tables, self._rows = [], 0
            else:
                self._tables, self._rows = [merged], merged.num_rows

    def _spill(self, table: Any) -> None:
        pyarrow = needs("pyarrow")
        path = self._folder / f"words-{len(self._spilled):05d}.arrow"
        with pyarrow.OSFile(str(path), "wb") as file, pyarrow.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table.sort_by("word"), max_chunksize=AT_ONCE)
        self._spilled.append(path)

    def _all(self) -> Iterator[Any]:
        """Yield tables of all words, in each of which a word's frequencies are complete."""
        if self._tables and self._spilled:
            self._spill(_merged(self._tables))
            self._tables, self._rows = [], 0
        if self._tables:
            yield _merged(self._tables)
        else:
            yield from _merged_files(self._spilled)

    def chosen(self, least: int, most: int, keep: int | None) -> Any:
        """Return the dictionary's words by id (Arrow strings).

        A word is in it that is in at least `least` and at most `most` documents; of these only the `keep` of
        most documents, of equal ones those that come first. Ids are in the order of the documents, and of the
        words in a document: those that gensim's ``Dictionary`` and its ``filter_extremes`` give.
        """
        pyarrow, compute = needs("pyarrow"), needs("pyarrow.compute")
        best: list[Any] = []
        for table in self._all():
            within = compute.and_(
                compute.greater_equal(table["documents"], least), compute.less_equal(table["documents"], most)
            )
            best.append(table.filter(within))
            if keep is not None and sum(part.num_rows for part in best) > 2 * keep + AT_ONCE:
                best = [_leading(pyarrow.concat_tables(best), keep)]
        if not best:
            return pyarrow.array([], pyarrow.large_string())
        table = pyarrow.concat_tables(best)
        if keep is not None:
            table = _leading(table, keep)
        words = table.sort_by([("first", "ascending"), ("word", "ascending")])["word"]
        return pyarrow.concat_arrays(words.chunks) if words.num_chunks else words.combine_chunks()


def _merged(tables: list[Any]) -> Any:
    """Return the frequencies of tables added up."""
    table = needs("pyarrow").concat_tables(tables)
    table = table.group_by("word").aggregate([("documents", "sum"), ("first", "min")])
    return table.select(["word", "documents_sum", "first_min"]).rename_columns(["word", "documents", "first"])


def _leading(table: Any, keep: int) -> Any:
    order = [("documents", "descending"), ("first", "ascending"), ("word", "ascending")]
    return table.sort_by(order).slice(0, keep)


def _merged_files(paths: list[Path]) -> Iterator[Any]:
    """Yield the frequencies of files, each sorted by word, added up: some words after the other."""
    pyarrow, compute = needs("pyarrow"), needs("pyarrow.compute")
    readers = [pyarrow.ipc.open_file(pyarrow.memory_map(str(path))) for path in paths]
    ahead: list[Any] = [None] * len(readers)  # the next words of each file
    places = [0] * len(readers)
    while True:
        for number, reader in enumerate(readers):
            if (ahead[number] is None or not ahead[number].num_rows) and places[
                number
            ] < reader.num_record_batches:
                batch = reader.get_batch(places[number])
                ahead[number] = pyarrow.Table.from_batches([batch])
                places[number] += 1
        filled = [number for number, table in enumerate(ahead) if table is not None and table.num_rows]
        if not filled:
            return
        # Up to the first of their last words all words are here.
        limit = compute.min(pyarrow.array([ahead[n]["word"][-1].as_py() for n in filled], "large_string"))
        parts = []
        for number in filled:
            table = ahead[number]
            size = compute.sum(compute.less_equal(table["word"], limit)).as_py()
            parts.append(table.slice(0, size))
            ahead[number] = table.slice(size)
        yield _merged(parts)


def ids_of(words: Any, dictionary: Any) -> NDArray[np.int32]:
    """Return the id of each word, -1 of one that is not in the dictionary."""
    compute = needs("pyarrow.compute")
    found = compute.index_in(words.cast(dictionary.type), value_set=dictionary)
    return found.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32)
