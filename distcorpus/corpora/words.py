"""The words of texts, many texts at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from importlib import import_module
from itertools import chain
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from distcorpus.corpora.inputs import needs

#: Characters of a word.
SHORTEST, LONGEST = 2, 15
#: Bytes of texts whose words are looked for at once.
AT_ONCE = 2 << 20
#: A character that is of no word, and has one byte.
_BETWEEN = re.compile(rb"[^0-9A-Za-z_\x80-\xff]")
#: What letters and gensim's `simple_preprocess` call a word.
LETTERS, GENSIM = "letters", "gensim"

Tokenizer: TypeAlias = Callable[[str], Iterable[str]]
#: The number of each token's word, where each text's tokens begin and end, and the words (Arrow strings).
Tokens: TypeAlias = tuple[NDArray[np.int32], NDArray[np.int64], Any]


def tokenizer(name: str | Tokenizer) -> str | Tokenizer:
    """Return `LETTERS`, `GENSIM`, or the function that ``MODULE:FUNCTION`` names.

    Raises
    ------
    ValueError
        If there is no such function.
    """
    if callable(name) or name in (LETTERS, GENSIM):
        return name
    module, _, attribute = name.partition(":") if isinstance(name, str) else ("", "", "")
    if not module or not attribute:
        raise ValueError(f"tokenizer={name!r}: give {LETTERS}, {GENSIM} or MODULE:FUNCTION, or a function")
    try:
        function: Any = import_module(module)
        for part in attribute.split("."):
            function = getattr(function, part)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"tokenizer={name!r} cannot be imported: {error}") from None
    if not callable(function):
        raise ValueError(f"tokenizer={name!r} is a {type(function).__name__}: give a function of a text")
    return function


@cache
def letters_of(kind: str) -> NDArray[np.bool_]:
    """Return which characters are of words, by their numbers, as this Python knows them."""
    if kind == LETTERS:
        return _characters(str.isalpha)
    # What is \w for Python's `re`, and not \d; gensim itself takes a second to import in each process.
    table = _characters(str.isalnum) & ~_characters(str.isdecimal)
    table[ord("_")] = True
    return table


def _characters(are: Callable[[str], bool]) -> NDArray[np.bool_]:
    return np.fromiter(map(are, map(chr, range(0x110000))), bool, 0x110000)


def _of_words(content: NDArray[np.uint8], table: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return for each byte of a text in UTF-8 whether its character is of a word, not of too many at once."""
    mask = np.empty(len(content), bool)
    start = 0
    while start < len(content):
        end = min(start + AT_ONCE, len(content))
        while end < len(content) and content[end] & 0xC0 == 0x80:  # within a character
            end += 1
        mask[start:end] = _of_some(content[start:end], table)
        start = end
    return mask


def _of_some(content: NDArray[np.uint8], table: NDArray[np.bool_]) -> NDArray[np.bool_]:
    mask = table[:256][content] & (content < 0x80)
    leads = np.flatnonzero(content >= 0xC0)
    if len(leads):
        lead = content[leads].astype(np.int32)
        size = 2 + (lead >= 0xE0) + (lead >= 0xF0)
        code = lead & (0xFF >> (size + 1))
        for k in (1, 2, 3):
            has = size > k
            code[has] = code[has] << 6 | content[leads[has] + k] & 0x3F
        wanted = table[code]
        leads, size = leads[wanted], size[wanted]
        for k in range(4):
            mask[leads[size > k] + k] = True
    return mask


def runs(texts: Sequence[bytes], kind: str) -> Tokens:
    """Return the runs of letters of texts in UTF-8 and lower case, see `wanted` for which of these are words.

    Parameters
    ----------
    texts : sequence of bytes
    kind : {"letters", "gensim"}
        What a letter is: of Unicode's category L; or what gensim's `simple_preprocess` takes for one.
    """
    pyarrow = needs("pyarrow")
    content = np.frombuffer(b"\n" + b"\n".join(texts) + b"\n", np.uint8)
    mask = _of_words(content, letters_of(kind))
    edges = np.flatnonzero(mask[1:] != mask[:-1]) + 1
    starts, lengths = edges[::2], edges[1::2] - edges[::2]
    begins = 1 + np.cumsum([0, *(len(text) + 1 for text in texts)])
    indptr = np.searchsorted(starts, begins)
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
    buffers = [None, pyarrow.py_buffer(offsets), pyarrow.py_buffer(content[mask])]
    found = pyarrow.Array.from_buffers(pyarrow.string(), len(lengths), buffers).dictionary_encode()
    return found.indices.to_numpy(), indptr, found.dictionary


def cut(text: bytes) -> Iterator[bytes]:
    """Cut a long text in UTF-8 where no word can be, so that `runs` gives the words of its parts."""
    start = 0
    while len(text) - start > AT_ONCE and (end := _BETWEEN.search(text, start + AT_ONCE)):
        yield text[start : end.start()]
        start = end.start()
    yield text[start:] if start else text


def tokens(texts: Sequence[str], function: Tokenizer) -> Tokens:
    """Return the words of texts that a function gives.

    Raises
    ------
    TypeError
        If it gives something else.
    """
    pyarrow = needs("pyarrow")
    lists = []
    for text in texts:
        found = function(text)
        words = [found] if isinstance(found, str) else list(found)
        wrong = next((word for word in words if not isinstance(word, str)), None)
        if wrong is not None or isinstance(found, str):
            raise TypeError(f"the tokenizer has to give a list of strings, and gave {found!r:.80}")
        lists.append(words)
    indptr = np.cumsum([0, *map(len, lists)])
    found = pyarrow.array(list(chain.from_iterable(lists)), pyarrow.string()).dictionary_encode()
    return found.indices.to_numpy(), indptr, found.dictionary


def wanted(words: Any, kind: str | Tokenizer, stopwords: frozenset[str]) -> NDArray[np.bool_]:
    """Return which of the words (Arrow strings) that `runs` or `tokens` gave are words of a document."""
    pyarrow, compute = needs("pyarrow"), needs("pyarrow.compute")
    stop = compute.is_in(words, value_set=pyarrow.array(sorted(stopwords), pyarrow.string()))
    keep = compute.invert(stop)
    if not callable(kind):
        size = compute.utf8_length(words)
        for fits in (compute.greater_equal(size, SHORTEST), compute.less_equal(size, LONGEST)):
            keep = compute.and_(keep, fits)
    if kind == GENSIM:
        keep = compute.and_not(keep, compute.starts_with(words, "_"))
    return keep.to_numpy(zero_copy_only=False)
