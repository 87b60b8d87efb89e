"""Run the name server, by which all others find each other. The same as ``distcorpus nameserver``."""

import sys

from distcorpus.cli import main

if __name__ == "__main__":
    main(["nameserver", *sys.argv[1:]])
