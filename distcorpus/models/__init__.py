"""gensim's LDA and LSI models with the same constructors, methods and files: faster, and distributed without
limits.
"""

from distcorpus.models._report import performance_report
from distcorpus.models.ldamodel import LdaModel
from distcorpus.models.lsimodel import LsiModel

__all__ = ["LdaModel", "LsiModel", "performance_report"]
