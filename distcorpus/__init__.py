"""gensim's distributed LSI and LDA over a cluster of worker daemons."""

from distcorpus._version import __version__

__all__ = ["__version__"]
