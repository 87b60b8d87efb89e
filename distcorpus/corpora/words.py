"""The words of texts, many texts at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from importlib import import_module
from itertools import chain
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from distcorpus.corpora.inputs import needs

#: Characters of a word.
SHORTEST, LONGEST = 2, 15
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
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise ValueError(f"tokenizer={name!r}: give {LETTERS}, {GENSIM} or MODULE:FUNCTION")
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
def _table(kind: str) -> NDArray[np.bool_]:
    """Return which characters are of words, by their numbers, as this Python knows them."""
    characters = "".join(map(chr, range(0x110000)))
    if kind == LETTERS:
        return np.fromiter(map(str.isalpha, characters), bool, len(characters))
    from gensim.utils import PAT_ALPHABETIC

    table = np.zeros(len(characters), bool)
    for found in PAT_ALPHABETIC.finditer(characters):
        table[found.start() : found.end()] = True
    return table


def _of_words(content: NDArray[np.uint8], table: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return for each byte of a text in UTF-8 whether its character is of a word."""
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
    """Return the words of texts in UTF-8 and lower case: their runs of letters, of 2 to 15 characters.

    Parameters
    ----------
    texts : sequence of bytes
    kind : {"letters", "gensim"}
        What a letter is: of Unicode's category L; or what gensim's `simple_preprocess` takes for one.
    """
    pyarrow, compute = needs("pyarrow"), needs("pyarrow.compute")
    content = np.frombuffer(b"\n" + b"\n".join(texts) + b"\n", np.uint8)
    mask = _of_words(content, _table(kind))
    edges = np.flatnonzero(mask[1:] != mask[:-1]) + 1
    starts, lengths = edges[::2], edges[1::2] - edges[::2]
    begins = 1 + np.cumsum([0, *(len(text) + 1 for text in texts)])
    indptr = np.searchsorted(starts, begins)
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
    buffers = [None, pyarrow.py_buffer(offsets), pyarrow.py_buffer(content[mask])]
    found = pyarrow.Array.from_buffers(pyarrow.string(), len(lengths), buffers).dictionary_encode()
    words = found.dictionary
    size = compute.utf8_length(words)
    keep = compute.and_(compute.greater_equal(size, SHORTEST), compute.less_equal(size, LONGEST))
    if kind == GENSIM:
        keep = compute.and_not(keep, compute.starts_with(words, "_"))
    return _kept(found.indices.to_numpy(), indptr, words, keep)


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


def without(found: Tokens, stopwords: frozenset[str]) -> Tokens:
    """Return tokens without those of some words."""
    pyarrow, compute = needs("pyarrow"), needs("pyarrow.compute")
    if not stopwords:
        return found
    codes, indptr, words = found
    stop = compute.is_in(words, value_set=pyarrow.array(sorted(stopwords), pyarrow.string()))
    return _kept(codes, indptr, words, compute.invert(stop))


def _kept(codes: NDArray[np.int32], indptr: NDArray[np.int64], words: Any, keep: Any) -> Tokens:
    """Return the tokens whose words are kept."""
    kept = keep.to_numpy(zero_copy_only=False)
    numbers = (np.cumsum(kept) - 1).astype(np.int32)
    chosen = kept[codes]
    before = np.concatenate(([0], np.cumsum(chosen)))
    return numbers[codes[chosen]], before[indptr], words.filter(keep)
