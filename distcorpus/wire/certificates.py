"""A certification authority of one's own, and its certificates (with the cryptography library).

The authority is a folder with ``ca.pem`` and ``ca-key.pem``, which stays with whoever runs the cluster. A
node gets a folder with ``ca.pem``, ``cert.pem`` and ``key.pem``, which `distcorpus.wire.tls` reads.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

try:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
except ImportError as error:
    raise RuntimeError(
        "making certificates needs the cryptography library (using them does not): "
        "pip install 'distcorpus[tls]'"
    ) from error

from distcorpus.wire import roles
from distcorpus.wire.tls import AUTHORITY, CERTIFICATE, KEY

AUTHORITY_KEY = "ca-key.pem"
AUTHORITY_DAYS = 3650
DAYS = 30
_MOST_DAYS = 36500

#: A certificate is valid from so long ago, for hosts whose clocks are behind.
_CLOCK_SKEW = datetime.timedelta(minutes=10)


def make_authority(folder: str | os.PathLike[str], days: float = AUTHORITY_DAYS) -> Path:
    """Make a certification authority: a self-signed certificate and its key (ECDSA, P-256).

    Parameters
    ----------
    folder : path
        Where to write ``ca.pem`` and ``ca-key.pem``; made, with mode 0700, if it is not there.
    days : float
        How long the authority is valid.

    Returns
    -------
    Path
        `folder`.

    Raises
    ------
    FileExistsError
        There is an authority already.
    """
    folder = Path(folder).expanduser()
    for file in (AUTHORITY, AUTHORITY_KEY):
        if (folder / file).exists():
            raise FileExistsError(
                f"{folder / file} is there already: a new authority would make all its certificates worthless"
            )
    key = ec.generate_private_key(ec.SECP256R1())
    # No two authorities have the same name, so that a certificate of another one is told as such.
    name = _name(f"distcorpus CA {secrets.token_hex(4)}")
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(ca=True, path_length=0), True),
        (_usage(key_cert_sign=True, crl_sign=True), True),
        (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
    ]
    certificate = _sign(name, name, key.public_key(), _from_now(days), extensions, key)
    _make_folder(folder)
    _write(folder / AUTHORITY_KEY, _key_pem(key), 0o600)
    _write(folder / AUTHORITY, certificate, 0o644)
    return folder


def issue(
    authority: str | os.PathLike[str],
    role: str,
    hosts: Sequence[str] = (),
    days: float = DAYS,
    folder: str | os.PathLike[str] | None = None,
) -> Path:
    """Issue a certificate, or renew one: the folder that a process of the cluster is given.

    Parameters
    ----------
    authority : path
        The folder of `make_authority`.
    role : {"nameserver", "dispatcher", "worker", "client", "viewer"}
        What its holder may do, see `distcorpus.wire.roles`.
    hosts : sequence of str
        Host names and addresses at which others reach its holder; none for a client or a viewer, which
        nobody connects to.
    days : float
        How long it is valid; at most as long as the authority's own.
    folder : path, optional
        Where to write ``ca.pem``, ``cert.pem`` and ``key.pem`` (mode 0600); by default a folder within
        `authority`, named after the role and the first host. What is there is replaced, file by file.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    FileNotFoundError
        `authority` is none.
    ValueError
        A server without a host, another with one, a host that is no name, or days that are none.
    """
    if role not in roles.ROLES:
        raise ValueError(f"role {role!r}: the roles are {', '.join(roles.ROLES)}")
    if not hosts and role in roles.SERVERS:
        raise ValueError(
            f"the certificate of a {role} names the hosts at which others reach it: give --host NAME ..."
        )
    if hosts and role not in roles.SERVERS:
        raise ValueError(f"the certificate of a {role} names no host, for nobody connects to it: drop --host")
    source = Path(authority).expanduser()
    ca, ca_key = _read_authority(source)
    key = ec.generate_private_key(ec.SECP256R1())
    purposes = [x509.ExtendedKeyUsageOID.CLIENT_AUTH]
    if role in roles.SERVERS:  # the others thus cannot serve, not even those who know nothing of roles
        purposes.append(x509.ExtendedKeyUsageOID.SERVER_AUTH)
    authority_id = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (_usage(digital_signature=True), True),
        (x509.ExtendedKeyUsage(purposes), False),
        (x509.SubjectAlternativeName(_alternative_names(role, hosts)), False),
        (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
        (x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(authority_id), False),
    ]
    until = min(_from_now(days), ca.not_valid_after_utc)
    certificate = _sign(_name(f"distcorpus {role}"), ca.subject, key.public_key(), until, extensions, ca_key)
    label = "-".join([role, *hosts[:1]]).replace("*", "any").replace(":", "-")
    target = source / label if folder is None else Path(folder).expanduser()
    _make_folder(target)
    _write(target / KEY, _key_pem(key), 0o600)
    _write(target / AUTHORITY, (source / AUTHORITY).read_bytes(), 0o644)
    _write(target / CERTIFICATE, certificate, 0o644)
    return target


def _read_authority(folder: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    try:
        # New certificates are signed by the first authority; the file may hold another one that is trusted.
        ca = x509.load_pem_x509_certificates((folder / AUTHORITY).read_bytes())[0]
        key = serialization.load_pem_private_key((folder / AUTHORITY_KEY).read_bytes(), None)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{error.filename} is missing: make an authority with 'distcorpus certs init {folder}'"
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or ca.public_key() != key.public_key():
        raise ValueError(f"{folder / AUTHORITY_KEY} is not the key of the first certificate in {AUTHORITY}")
    return ca, key


def _sign(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    until: datetime.datetime,
    extensions: Sequence[tuple[x509.ExtensionType, bool]],
    key: ec.EllipticCurvePrivateKey,
) -> bytes:
    """Return a signed certificate as PEM; `extensions` says of each whether it is critical."""
    builder = x509.CertificateBuilder(
        issuer_name=issuer,
        subject_name=subject,
        public_key=public_key,
        serial_number=x509.random_serial_number(),
        not_valid_before=_now() - _CLOCK_SKEW,
        not_valid_after=until,
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


def _usage(**uses: bool) -> x509.KeyUsage:
    unused: dict[str, Any] = dict.fromkeys(
        (
            "digital_signature",
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "key_cert_sign",
            "crl_sign",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    return x509.KeyUsage(**{**unused, **uses})


def _alternative_names(role: str, hosts: Sequence[str]) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(roles.uri(role))]
    for host in hosts:
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(host)))
        except ValueError:
            if not host.isascii() or not host or set(host) & set("/:@ "):
                raise ValueError(f"host {host!r}: give a host name or an address, without a port") from None
            names.append(x509.DNSName(host))
    return names


def _from_now(days: float) -> datetime.datetime:
    if not 0 < days <= _MOST_DAYS:
        raise ValueError(f"{days:g} days: give a number above 0, up to {_MOST_DAYS}")
    return _now() + datetime.timedelta(days=days)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _make_folder(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)


def _write(path: Path, contents: bytes, mode: int) -> None:
    """Write a file of that mode in one step: who reads it meanwhile gets the old one or the new one."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)  # whatever the umask
            file.write(contents)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
