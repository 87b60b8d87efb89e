"""Run the name server, which tells where the dispatcher and the workers are. The same as ``distcorpus nameserver``."""

import sys

from distcorpus.cli import main

if __name__ == "__main__":
    main(["nameserver", *sys.argv[1:]])
