"""gensim's LDA and LSI models with the same constructors, methods and files: faster, and distributed without
limits.
"""

from distcorpus.models.ldamodel import LdaModel

__all__ = ["LdaModel"]
