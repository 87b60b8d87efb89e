"""Run the dispatcher, once in a cluster. The same as ``distcorpus dispatcher``."""

import sys

from distcorpus.cli import main

if __name__ == "__main__":
    main(["dispatcher", *sys.argv[1:]])
