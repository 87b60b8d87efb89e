"""gensim's distributed LSI and LDA over a cluster of worker daemons.

Importing it makes this process speak the cluster's restricted serializer: unmodified gensim models with
``distributed=True`` then find and use a cluster with no environment variable set.
"""

from distcorpus import wire as _wire
from distcorpus._version import __version__

_wire.install()

from distcorpus.cluster import LocalCluster, LocalWorker  # noqa: E402

__all__ = ["LocalCluster", "LocalWorker", "__version__"]
