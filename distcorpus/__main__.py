"""``python -m distcorpus``: the console command."""

from distcorpus.cli import main

if __name__ == "__main__":
    main()
