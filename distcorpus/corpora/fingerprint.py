"""What the words that a tokenizer gives follow from, so that counts are kept only where they are the same."""

from __future__ import annotations

import hashlib
import io
import pickle
import sys
import uuid
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

from distcorpus.corpora.words import Tokenizer


def of_tokenizer(function: Tokenizer) -> list[Any]:
    """Return what is known of a function: equal in another process where it gives the same words.

    It is the function with all that it holds, and the files of the modules that it and its parts are of; what
    these modules import is not seen. Where that cannot be known, as in a notebook, it is equal to nothing.
    """
    reading = _Reading()
    try:
        reading.dump(function)
        files = {name: _content_of(name) for name in sorted(reading.modules)}
    except Exception:  # whatever the parts of a function of the user's raise
        return [uuid.uuid4().hex]
    return [hashlib.sha256(reading.file.getvalue()).hexdigest(), files]


class _Reading(pickle.Pickler):
    """Pickles a function, and tells which modules it and its parts are of."""

    def __init__(self) -> None:
        self.file = io.BytesIO()
        super().__init__(self.file, 4)
        self.modules: set[str] = set()

    def reducer_override(self, thing: Any) -> Any:
        if isinstance(thing, type | FunctionType):
            self.modules.add(thing.__module__)
        if isinstance(thing, FunctionType) and thing.__closure__ is None:
            code = f"{thing.__module__}:{thing.__qualname__} {_described(thing.__code__)}"
            return str, (code, thing.__defaults__, thing.__kwdefaults__)  # never read
        return NotImplemented


def _described(constant: Any) -> Any:
    """Return code, or a constant of it, as a text without addresses and without an order of sets."""
    if isinstance(constant, CodeType):
        parts = [_described(part) for part in constant.co_consts]
        return f"{constant.co_code.hex()} {constant.co_names} {parts}"
    if isinstance(constant, tuple):
        return f"({[_described(part) for part in constant]})"
    if isinstance(constant, frozenset):
        return f"{{{sorted(map(_described, constant))}}}"
    return repr(constant)


def _content_of(module: str) -> str:
    """Return the checksum of a module's file; of what is built into Python its version."""
    if module in sys.builtin_module_names:
        return sys.version
    path = sys.modules[module].__file__
    assert path is not None
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
