"""Where the server listens, and with which certificate."""

import socket
import ssl
from pathlib import Path

from skylift.core.errors import invalid


def listening(host: str, port: int) -> socket.socket:
    """A socket bound to this address; port 0 is any that is free."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, kind, protocol)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as any server that is restarted
            made.bind(address)
        except OSError:
            made.close()
            raise
    except OSError as e:
        raise OSError(e.errno, f"cannot listen: {e.strerror}", f"{host}:{port}") from e
    return made


def tls(certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """None without. Half of it is refused: the server would answer in clear where somebody wanted TLS."""
    if certificate is None or key is None:
        for name, value in (("tls_certificate", certificate), ("tls_key", key)):
            if value is None and (certificate or key) is not None:
                raise invalid(name, "", "is needed: certificate and key go together")
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_cert_chain(certificate, key, password=lambda: "")
    except (OSError, ValueError) as e:
        raise invalid("tls_certificate", str(certificate), f"must be PEM with tls_key as its key: {e}") from e
    return context


def ask_for_certificates(tls: ssl.SSLContext, client_ca: Path) -> None:
    """Of whoever connects, made by this authority. `invalid_value` where the file is none."""
    tls.verify_mode = ssl.CERT_REQUIRED
    try:
        tls.load_verify_locations(client_ca)
    except OSError as e:
        raise invalid("tls_client_ca", str(client_ca), f"must be PEM: {e}") from e
