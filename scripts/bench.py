"""Measure distcorpus against gensim and its peers: ``python scripts/bench.py estep``, or another subcommand.

Each subcommand prints a table of ratios and the machine. ``--quick`` shows in a minute or two that everything
works, on a few documents: its figures mean nothing. ``--write-docs`` puts the result and its plots into
docs/benchmarks.md. ``pip install '.[bench]'`` installs the competitors.
"""

from __future__ import annotations

import argparse
import importlib
import os
import time

from benchmarks import machine, report, scale

SUBCOMMANDS = {
    "estep": "LDA's E-step on one thread",
    "lsi": "LSI's factorisation on one thread, and its fused product",
    "building": "a corpus from text, by CPU seconds",
    "train": "LDA and LSI end to end, on clusters of this machine",
    "curves": "held-out perplexity against seconds (train --curves does the same)",
    "memory": "what a worker's memory grows by in LDA, and a process's in LSI",
    "wire": "megabytes a second over loopback",
    "scale": "large corpora: built from text, LDA and LSI, with every process's memory and CPU seconds",
    "siege": "training runs while the cluster is attacked",
    "watching": "training runs while ten dashboards look at the cluster",
}


def main() -> None:
    """Run a subcommand."""
    parser = argparse.ArgumentParser(
        allow_abbrev=False, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, what in {**SUBCOMMANDS, "all": "all of these, one after the other"}.items():
        command = commands.add_parser(name, help=what, description=what)
        command.add_argument("--quick", action="store_true", help="few documents: only to see that it works")
        command.add_argument("--repeats", type=int, help="interleaved runs of each competitor")
        command.add_argument("--write-docs", action="store_true", help="update docs/benchmarks.md, plots too")
        if name == "scale":
            scale.add_options(command)
        if name == "train":
            command.add_argument("--curves", action="store_true", help=SUBCOMMANDS["curves"])
    options = parser.parse_args()
    if options.quick and options.write_docs:
        parser.error("--write-docs wants a full run: leave --quick out")
    machine.start_again_where_needed()

    names = list(SUBCOMMANDS) if options.command == "all" else [options.command]
    if options.command == "train" and options.curves:
        names = ["curves"]
    for name in names:
        module = importlib.import_module(f"benchmarks.{name}")
        repeats = options.repeats or (1 if options.quick else module.REPEATS)
        busy = os.getloadavg()[0]
        began = time.perf_counter()
        chosen = (
            {key: getattr(options, key) for key in scale.OPTIONS}
            if name == "scale" and options.command == "scale"
            else {}
        )
        result = module.run(options.quick, repeats, **chosen)
        runs = f"* medians of {repeats} interleaved runs" if repeats > 1 else "* one run"
        duration = f"{runs}; {time.perf_counter() - began:.0f} s in all; load average before: {busy:.1f}"
        if options.quick:
            duration += (
                "\n* a quick run: fewer documents and topics than said above; its figures mean nothing"
            )
        text = f"{module.NOTE}\n\n{result.text}\n\n{machine.description()}\n{duration}"
        print(f"## {name}\n\n{text}\n", flush=True)
        if options.write_docs:
            report.write_section(name, text, result.plots)


if __name__ == "__main__":
    main()
