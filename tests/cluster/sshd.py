"""OpenSSH's server, with keys of its own, for tests of ``distcorpus ssh``."""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
from pathlib import Path

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
missing = SSHD is None or shutil.which("ssh") is None or shutil.which("ssh-keygen") is None


class Keys:
    """Keys of a server and of a user, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("host", "user"):
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL)

    def server(self, address: str, port: int) -> list[str]:
        """The command that serves, in the foreground."""
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where it confines itself
        configuration = self.folder / f"sshd-{address}-{port}"
        configuration.write_text(
            f"""
ListenAddress {address}
Port {port}
HostKey {self.folder / "host"}
AuthorizedKeysFile {self.folder / "user.pub"}
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PidFile none
AllowUsers {getpass.getuser()}
PermitRootLogin prohibit-password
"""
        )
        assert SSHD is not None
        return [SSHD, "-D", "-e", "-f", str(configuration)]

    def options(self, port: int) -> list[str]:
        """Options of ``distcorpus ssh``: nothing of the user's own files is used."""
        settings = {
            "Port": port,
            "IdentityFile": self.folder / "user",
            "IdentitiesOnly": "yes",
            "StrictHostKeyChecking": "no",
            "UserKnownHostsFile": "/dev/null",
            "LogLevel": "ERROR",
        }
        return [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
