"""gensim's distributed LSI and LDA over a cluster of worker daemons.

Importing it makes this process speak the cluster's restricted serializer: unmodified gensim models with
``distributed=True`` then find and use a cluster with no environment variable set.
"""

from typing import TYPE_CHECKING, Any

from distcorpus import wire as _wire
from distcorpus._version import __version__

_wire.install()

from distcorpus.cluster import LocalCluster, LocalWorker  # noqa: E402

if TYPE_CHECKING:
    from distcorpus.models import LdaModel, LsiModel

__all__ = ["LdaModel", "LocalCluster", "LocalWorker", "LsiModel", "__version__"]


def __getattr__(name: str) -> Any:
    # The models import gensim, which daemons and command lines do without.
    if name in ("LdaModel", "LsiModel"):
        from distcorpus import models

        return getattr(models, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
