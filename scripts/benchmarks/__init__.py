"""The parts of ``scripts/bench.py``, one module a subcommand."""
