"""Run what is built on gensim's models with ours in their place, in a throw-away environment; compare.

Each suite of gensim's own tests runs three times, each time in a process of its own: with gensim's classes
(the control), with ours here, and with ours on a `LocalCluster`. A test that passes in the control has to
pass with ours; every difference that is not one of `KNOWN` is printed, and makes the exit status 1.

    python scripts/thirdparty.py [--suites NAME ...] [--here]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

#: Modules of gensim's tests that build on its LDA and LSI models.
SUITES = {
    "ensembles": "gensim.test.test_ensemblelda",
    "LdaSeq": "gensim.test.test_ldaseqmodel",
    "coherence": "gensim.test.test_coherencemodel",
    "similarities": "gensim.test.test_similarities",
    "LSI": "gensim.test.test_lsimodel",
}
#: Tests that cannot pass with other classes in the place of gensim's, and why.
KNOWN = {
    "test_backwards_compatibility_with_persisted_model": "the very numbers of gensim's training of a seed",
    "test_add_models": "LdaMulticore, which is no subclass of what stands in the place of LdaModel",
}
WAYS = ("gensim", "here", "cluster")
TIMEOUT = 1800

#: Puts our classes in the place of gensim's wherever gensim has them, runs a module's tests, tells what came.
RUNNER = """
import contextlib, importlib, io, json, sys, time, unittest, warnings
warnings.simplefilter("ignore")
import gensim.models
module, way = sys.argv[1:]

def replace(original, ours):
    for name, loaded in list(sys.modules.items()):
        if name.startswith("gensim"):
            for attribute, value in list(vars(loaded).items()):
                if value is original:
                    setattr(loaded, attribute, ours)

cluster = contextlib.nullcontext()
tests = importlib.import_module(module)
if way != "gensim":
    import distcorpus
    for name in ("LdaModel", "LsiModel"):
        original, ours = getattr(gensim.models, name), getattr(distcorpus, name)
        if way == "cluster":
            def __init__(self, *args, _base=ours, **kwargs):
                _base.__init__(self, *args, **{"distributed": True, **kwargs})
            ours = type(name, (ours,), {"__init__": __init__, "__module__": "__main__"})
            globals()[name] = ours
        replace(original, ours)
    if way == "cluster":
        cluster = distcorpus.LocalCluster(n_workers=2)

class Outcomes(unittest.TestResult):
    def __init__(self):
        super().__init__()
        self.found = {}
    def addSuccess(self, test): self.found[test.id()] = "passed"
    def addFailure(self, test, error): self.found[test.id()] = f"failed: {error[1]!r}"
    def addError(self, test, error): self.found[test.id()] = f"error: {error[1]!r}"
    def addSkip(self, test, reason): self.found[test.id()] = "skipped"

outcomes, output = Outcomes(), io.StringIO()
start = time.perf_counter()
with cluster, contextlib.redirect_stdout(output):
    unittest.defaultTestLoader.loadTestsFromModule(tests).run(outcomes)
print(json.dumps({"seconds": time.perf_counter() - start, "tests": outcomes.found}))
"""


def environment(folder: str) -> str:
    """Make an environment with this checkout in it; return its interpreter."""
    venv.create(folder, with_pip=True)
    python = str(Path(folder) / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "--quiet", f"{ROOT}", "testfixtures"], check=True)
    return python


def outcomes(python: str, module: str, way: str) -> tuple[float, dict[str, str]]:
    """Run a suite; return its seconds and what became of each test."""
    variables = {**os.environ, "PYTHONHASHSEED": "0"}
    done = subprocess.run(
        [python, "-c", RUNNER, module, way],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        env=variables,
        cwd=tempfile.gettempdir(),
    )
    if done.returncode:
        raise RuntimeError(f"{module}, {way}: {done.stderr[-2000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    return found["seconds"], found["tests"]


def differences(control: dict[str, str], ours: dict[str, str]) -> Iterator[str]:
    """Yield the tests that passed in the control and, against what is known, not with ours, and why."""
    for test, outcome in control.items():
        if outcome == "passed" and test.rsplit(".", 1)[-1] not in KNOWN and ours.get(test) != "passed":
            yield f"{test}: {ours.get(test, 'did not run')[:300]}"


def main() -> None:
    """Run the suites and print the table."""
    parser = argparse.ArgumentParser(
        allow_abbrev=False, description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--suites", nargs="*", choices=SUITES, default=list(SUITES))
    parser.add_argument("--here", action="store_true", help="use this interpreter, without an environment")
    options = parser.parse_args()
    failed: list[str] = []
    with tempfile.TemporaryDirectory(prefix="thirdparty-") as folder:
        python = sys.executable if options.here else environment(folder)
        print("| suite | tests | gensim | ours, here | ours, on a cluster | differences |")
        print("|---|---|---|---|---|---|", flush=True)
        for suite in options.suites:
            found = {way: outcomes(python, SUITES[suite], way) for way in WAYS}
            control = found["gensim"][1]
            worse = [f"{way}: {text}" for way in WAYS[1:] for text in differences(control, found[way][1])]
            failed += worse
            passed = sum(outcome == "passed" for outcome in control.values())
            seconds = " | ".join(f"{found[way][0]:.1f} s" for way in WAYS)
            print(f"| {suite} | {passed} | {seconds} | {len(worse)} |", flush=True)
    print("\n".join(failed))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
