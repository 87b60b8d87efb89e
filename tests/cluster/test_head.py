"""Name server and dispatcher in one command: with TLS, and what it refuses."""

from __future__ import annotations

import subprocess
import sys

import pytest

from distcorpus.cli import main


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--bind", "0.0.0.0"], "--insecure"),
        (["--tls", "{dispatcher}"], "--tls-nameserver"),
        (["--tls-nameserver", "{nameserver}"], "name the dispatcher's too, with --tls"),
        (["--tls", "{dispatcher}", "--tls-nameserver", "{worker}"], "holds a worker's certificate"),
        (["--tls", "{worker}", "--tls-nameserver", "{nameserver}", "--port", "0"], "a dispatcher needs one"),
        (["--advertise", "alpha:9090"], "two ports"),
    ],
)
def test_what_it_refuses(options, error, credentials):
    folders = {role: str(folder) for role, folder in credentials.items()}
    command = [sys.executable, "-m", "distcorpus", "head", *(option.format(**folders) for option in options)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert error in done.stderr
    assert "Traceback" not in done.stderr


def test_with_tls_each_has_its_own_certificate(credentials, tmp_path, capsys):
    """And `status` with a client's, which checks the roles of both, finds them."""
    path = tmp_path / "cluster.json"
    options = ["--tls", str(credentials["dispatcher"]), "--tls-nameserver", str(credentials["nameserver"])]
    command = [sys.executable, "-m", "distcorpus", "head", "--port", "0", "--until-eof", *options]
    with subprocess.Popen(
        [*command, "--address-file", str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as head:
        lines = [head.stdout.readline() for _ in range(4)]
        try:
            assert "TLS with a certificate until" in lines[2]
            main(["status", "--address-file", str(path), "--tls", str(credentials["client"])])
            assert f"pid {head.pid}" in capsys.readouterr().out
        finally:
            head.stdin.close()
    assert head.returncode == 0
