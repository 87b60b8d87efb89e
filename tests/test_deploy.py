"""The recipes in deploy/: what can be known of them without systemd, Docker or Kubernetes running."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from distcorpus.cli.commands import parser

DEPLOY = Path(__file__).parents[1] / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))


def parse(words):
    """Parse a command line of ours, without its program."""
    return parser().parse_args(words)


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.stem)
def test_units_start_what_there_is(unit):
    text = unit.read_text("utf-8")
    (start,) = re.findall(r"^ExecStart=\S*/distcorpus (.*)$", text, re.MULTILINE)
    role = unit.stem.removeprefix("distcorpus-").removesuffix("@")
    assert parse(shlex.split(start.replace("$OPTIONS", ""))).command == role
    environment = DEPLOY / "systemd" / f"{role}.env"
    if environment.exists():
        (options,) = re.findall(r"^OPTIONS=(.*)$", environment.read_text("utf-8"), re.MULTILINE)
        parse(shlex.split(start.replace("$OPTIONS", options)))


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd on this machine")
def test_systemd_understands_the_units(tmp_path):
    for unit in UNITS:
        text = unit.read_text("utf-8").replace("/opt/distcorpus/bin/distcorpus", shutil.which("true") or "")
        (tmp_path / unit.name.replace("@", "@main")).write_text(text)
    units = sorted(map(str, tmp_path.iterdir()))
    done = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_containers_of_the_compose_file_start_what_there_is():
    yaml = pytest.importorskip("yaml")
    services = yaml.safe_load((DEPLOY / "docker" / "compose.yaml").read_text("utf-8"))["services"]
    for name in ("head", "worker"):
        assert parse(services[name]["command"]).command == name
        assert services[name]["read_only"] is True
    parse(services["head"]["healthcheck"]["test"][2:])


@pytest.fixture(scope="module")
def manifests():
    yaml = pytest.importorskip("yaml")
    return list(yaml.safe_load_all((DEPLOY / "kubernetes" / "distcorpus.yaml").read_text("utf-8")))


def test_pods_start_what_there_is_and_have_no_rights(manifests):
    pods = [thing["spec"]["template"]["spec"] for thing in manifests if thing["kind"] == "StatefulSet"]
    for pod in pods:
        (container,) = pod["containers"]
        options = parse(container["args"])
        assert options.command == container["name"]
        assert options.bind_port in {port["containerPort"] for port in container["ports"]}
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert pod["securityContext"]["runAsNonRoot"] is True
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert {volume["name"] for volume in pod["volumes"]} <= mounted
    assert len(pods) == 2


def test_services_and_policies_select_the_pods(manifests):
    sets = {thing["spec"]["serviceName"]: thing for thing in manifests if thing["kind"] == "StatefulSet"}
    for thing in manifests:
        name = thing["metadata"]["name"]
        if thing["kind"] in ("Service", "NetworkPolicy") and name in sets:
            spec = thing["spec"]
            selected = spec["selector"] if thing["kind"] == "Service" else spec["podSelector"]["matchLabels"]
            assert selected == sets[name]["spec"]["template"]["metadata"]["labels"]
            assert selected == sets[name]["spec"]["selector"]["matchLabels"]


def test_kubernetes_schemas(manifests):
    schemas = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")
    for thing in manifests:
        schemas.validate(thing, "1.27", strict=True)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="no shellcheck on this machine")
def test_the_batch_script_has_no_fault_that_shellcheck_knows():
    subprocess.run(["shellcheck", DEPLOY / "slurm" / "distcorpus.sbatch"], check=True)
