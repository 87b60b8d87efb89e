"""Run a worker daemon, on every node. The same as ``distcorpus worker``."""

import sys

from distcorpus.cli import main

if __name__ == "__main__":
    main(["worker", *sys.argv[1:]])
