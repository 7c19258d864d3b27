"""Who may ask, and for what: API keys, certificates, the endpoints that change the server."""

from __future__ import annotations

import hmac
import os
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from keras_blocks.errors import KerasBlocksError
from keras_blocks.serving.errors import AccessError, ClosedError

_SCHEME = "bearer "


@dataclass(frozen=True)
class ModelControl:
    """Whether models may be loaded and unloaded by requests.

    Args:
        closed: the reason why not, with the option to change; empty where they may.
    """

    closed: str = ""

    def check(self) -> None:
        """Lets a change pass.

        Raises:
            ClosedError: it may not.
        """
        if self.closed:
            raise ClosedError(f"models are not loaded or unloaded here: {self.closed}")


OPEN = ModelControl()


class ApiKeys:
    """The keys that open the server; without any it is open to all.

    Args:
        keys: the keys.
        path: the file that they are from, or None.
    """

    def __init__(self, keys: Iterable[str] = (), path: Path | None = None):
        self._keys = [key.encode() for key in keys]
        self._path = path

    def reload(self) -> None:
        """Reads the file again.

        Raises:
            OSError: it cannot be read.
            KerasBlocksError: it holds none.
        """
        if self._path is not None:
            self._keys = read_keys(self._path)._keys

    def __bool__(self) -> bool:
        """Whether a key is needed."""
        return bool(self._keys)

    def check(self, authorization: bytes | None) -> None:
        """Checks an Authorization header: `Bearer KEY`.

        Raises:
            AccessError: there is no key, or a wrong one.
        """
        if not self._keys:
            return
        given = (authorization or b"").decode("latin-1").strip()
        if not given.lower().startswith(_SCHEME):
            raise AccessError("an API key is needed; send the header 'Authorization: Bearer KEY'")
        key = given[len(_SCHEME) :].strip().encode("latin-1")
        # Every key is compared, and each to its end: time says nothing of how much was right.
        if not sum(hmac.compare_digest(key, known) for known in self._keys):
            raise AccessError("the API key is not one of this server's")


def read_keys(path: str | os.PathLike[str]) -> ApiKeys:
    """The keys of a file, one on each line.

    Raises:
        OSError: the file cannot be read.
        KerasBlocksError: it holds none, which would leave the server open.
    """
    lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    keys = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not keys:
        raise KerasBlocksError(f"{path} holds no API key; write one on each line")
    return ApiKeys(keys, Path(path))


def tls_context(
    certificate: str | os.PathLike[str],
    key: str | os.PathLike[str],
    protocol: str,
    client_ca: str | os.PathLike[str] | None = None,
) -> ssl.SSLContext:
    """TLS with a certificate and its private key, for one protocol: "http/1.1" or "h2".

    Args:
        certificate: a PEM file.
        key: a PEM file.
        protocol: the one that is spoken.
        client_ca: a PEM file of the authorities of whom clients must show a certificate, or None.
    Raises:
        KerasBlocksError: the files hold no certificate and key that belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    load_certificate(context, certificate, key)
    if client_ca is not None:
        try:
            context.load_verify_locations(client_ca)
        except ssl.SSLError as error:
            raise KerasBlocksError(f"{client_ca} holds no certificate: {error}") from error
        context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols([protocol])
    return context


def load_certificate(
    context: ssl.SSLContext, certificate: str | os.PathLike[str], key: str | os.PathLike[str]
) -> None:
    """Has a context show a certificate from now on.

    Raises:
        KerasBlocksError: the files hold no certificate and key that belong together.
    """
    try:
        # No password: a server that starts by itself has nobody to ask.
        context.load_cert_chain(certificate, key, password="")
    except ssl.SSLError as error:
        raise KerasBlocksError(
            f"{certificate} and {key} hold no certificate and its key without a password: {error}"
        ) from error
