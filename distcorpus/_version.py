"""The version of distcorpus, in one place."""

__version__ = "0.1.0"
#: Of what processes of ours say to each other; another number where one does not understand the other.
__wire__ = 1
