"""gensim's distributed LSI and LDA over a cluster of worker daemons.

In a process that has gensim, importing this makes Pyro4 speak the cluster's restricted serializer: unmodified
gensim models with ``distributed=True`` then find and use a cluster with no environment variable set. Without
gensim nothing is done until it comes, or something of this package is used that speaks over the wire; the
mathematics alone (`distcorpus.algorithms`) does not load Pyro4.
"""

import sys
from contextlib import suppress
from importlib import import_module
from importlib.abc import MetaPathFinder
from typing import TYPE_CHECKING, Any

from distcorpus._version import __version__

if TYPE_CHECKING:
    from distcorpus import corpora
    from distcorpus.cluster import LocalCluster, LocalWorker
    from distcorpus.corpora.corpus import Corpus
    from distcorpus.models import LdaModel, LsiModel, performance_report

__all__ = [
    "Corpus",
    "LdaModel",
    "LocalCluster",
    "LocalWorker",
    "LsiModel",
    "__version__",
    "corpora",
    "performance_report",
]

#: Where the public names are: each is imported when it is used. The models import gensim, which daemons and
#: command lines do without.
_HOMES = {
    "Corpus": "corpora",
    "LdaModel": "models",
    "LsiModel": "models",
    "LocalCluster": "cluster",
    "LocalWorker": "cluster",
    "performance_report": "models",
}


class _BeforeGensim(MetaPathFinder):
    """Configures Pyro4, which `distcorpus.wire` does when it is imported, before gensim is."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> None:
        if name == "gensim":
            import_module("distcorpus.wire")
            with suppress(ValueError):  # two threads look for it
                sys.meta_path.remove(self)


if "gensim" in sys.modules:
    import_module("distcorpus.wire")
else:
    sys.meta_path.insert(0, _BeforeGensim())


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"distcorpus.{_HOMES[name]}"), name)
    if name in ("cluster", "corpora", "wire"):
        return import_module(f"distcorpus.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
