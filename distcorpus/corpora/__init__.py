"""Documents: a user's corpus, whatever its kind, as chunks (imports algorithms).

`Corpus` is one on disk. It needs gensim, which workers and dispatchers do without, and is imported when it is
used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distcorpus.corpora.corpus import Corpus
    from distcorpus.corpora.files import DamagedError
    from distcorpus.corpora.inputs import InputError
    from distcorpus.corpora.writing import ShardWriter

__all__ = ["Corpus", "DamagedError", "InputError", "ShardWriter"]

_HOMES = {"Corpus": "corpus", "DamagedError": "files", "InputError": "inputs", "ShardWriter": "writing"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
