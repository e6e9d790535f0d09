"""One HTTP exchange at a time, over a socket that never makes its caller wait for more than a connection.

No redirects are followed, TLS verifies against the pinned authority and nobody else's.
"""

import socket
from binascii import a2b_base64

HEAD_MOST = 4096  # bytes
PIECE = 1024
CONNECT_S = 10


class Broken(Exception):
    """The way is bad; what came so far stands. `retry_after` in seconds, 0: not told."""

    def __init__(self, words, retry_after=0):
        super().__init__(words)
        self.words = words
        self.retry_after = retry_after


def server_of(url):
    """(host, port, whether it speaks TLS) of `http://HOST[:PORT]` or `https://...`; ValueError otherwise."""
    scheme, _, rest = url.partition("://")
    rest = rest[:-1] if rest.endswith("/") else rest
    host, _, port = rest.partition(":")
    if scheme not in ("http", "https") or not host or "/" in rest or (port and not port.isdigit()):
        raise ValueError("config: server is '" + url + "': must be http://HOST:PORT or https://HOST:PORT")
    return host, int(port or (443 if scheme == "https" else 80)), scheme == "https"


def _der(certificate):
    """A certificate's DER, whichever form it comes in."""
    body = certificate.encode() if isinstance(certificate, str) else certificate
    if not body.startswith(b"-----BEGIN"):
        return body
    lines = body.split(b"\n")
    return a2b_base64(
        b"".join(lines[1 : [line.strip() for line in lines].index(b"-----END CERTIFICATE-----")])
    )


class Http:
    """`ask`, then `head`, then `some` until it gives b""; `close` in any case. All raise `Broken`."""

    def __init__(self, server, ca=None):
        self._host, self._port, tls = server_of(server)
        self._name = server.partition("://")[2]
        self._context = context(ca) if tls else None
        self._plain = self._line = None
        self._room = bytearray(PIECE)

    def ask(self, method, path, token="", body=None, start=0, etag=""):
        """Connects and sends. `start` and `etag`: go on at this byte of this file."""
        self.close()
        lines = [method + " " + path + " HTTP/1.1", "Host: " + self._name, "Connection: close"]
        if token:
            lines.append("Authorization: Bearer " + token)
        if body is not None:
            lines += ["Content-Type: application/json", "Content-Length: " + str(len(body))]
        if start:
            lines += ["Range: bytes=" + str(start) + "-", 'If-Range: "' + etag + '"']
        said = ("\r\n".join(lines) + "\r\n\r\n").encode() + (body or b"")
        try:
            where = socket.getaddrinfo(self._host, self._port, 0, socket.SOCK_STREAM)[0][-1]
            self._plain = self._line = socket.socket()
            self._plain.settimeout(CONNECT_S)
            self._plain.connect(where)
            if self._context:
                self._line = self._context.wrap_socket(self._plain, server_hostname=self._host)
            at = 0
            while at < len(said):
                at += self._line.write(said[at:]) or 0
            self._plain.setblocking(False)
        except (OSError, ValueError) as e:
            self.close()
            raise Broken("the server cannot be reached (" + str(e) + ")") from None
        self._raw, self._left, self._chunked = b"", 0, False
        self.status, self.headers = 0, {}

    def head(self):
        """Whether the answer's head is there: `status`, `headers` with lower-case names, `length` of the
        body or None."""
        while b"\r\n\r\n" not in self._raw:
            if len(self._raw) > HEAD_MOST:
                raise Broken("an answer's head is larger than this device takes", 60)
            if not self._fill():
                return False
        head, _, self._raw = _parted(self._raw, b"\r\n\r\n")
        try:
            lines = head.decode().split("\r\n")
            self.status = int(lines[0].split(" ")[1])
            for line in lines[1:]:
                name, _, value = line.partition(":")
                self.headers[name.strip().lower()] = value.strip()
            self.length = int(self.headers["content-length"]) if "content-length" in self.headers else None
        except (ValueError, IndexError, UnicodeError):
            raise Broken("an answer is no HTTP") from None
        self._chunked = self.headers.get("transfer-encoding", "").lower() == "chunked"
        if self.status < 200 or self.status in (204, 304):
            self._chunked, self.length = False, 0
        if self.length is None and not self._chunked:
            raise Broken("an answer does not say how long it is")
        self._left = 0 if self._chunked else self.length
        return True

    def retry_after(self):
        """Seconds, 0: not told."""
        told = self.headers.get("retry-after", "")
        return int(told) if told.isdigit() and len(told) < 6 else 0

    def some(self, most):
        """At most so many bytes of the body; None: nothing yet; b"": that was all."""
        if self._chunked and not self._left:
            more = self._chunk()
            if not more:
                return b"" if more is False else None
        if not self._left:
            return b""
        if not self._raw and not self._fill():
            return None
        n = min(most, self._left, len(self._raw))
        found, self._raw = self._raw[:n], self._raw[n:]
        self._left -= n
        return found

    def _chunk(self):
        """Begins the next: True; False behind the last; None: its head is not there yet."""
        if self._raw.startswith(b"\r\n"):
            self._raw = self._raw[2:]
        while b"\r\n" not in self._raw:
            if len(self._raw) > 64:
                raise Broken("an answer is no HTTP")
            if not self._fill():
                return None
            if self._raw.startswith(b"\r\n"):
                self._raw = self._raw[2:]
        size, _, self._raw = _parted(self._raw, b"\r\n")
        try:
            self._left = int(_parted(size, b";")[0], 16)
        except ValueError:
            raise Broken("an answer is no HTTP") from None
        if not self._left:
            self._chunked = False
        return self._left > 0

    def _fill(self):
        """Whether anything came."""
        try:
            n = self._line.readinto(self._room)
        except OSError:
            raise Broken("an answer broke off") from None
        if n is None:
            return False
        if not n:
            raise Broken("an answer broke off")
        self._raw += memoryview(self._room)[:n]
        return True

    def close(self):
        for line in (self._line, self._plain):
            try:
                if line:
                    line.close()
            except OSError:
                pass  # it is gone anyway
        self._plain = self._line = None


def context(ca):
    """TLS that verifies against this authority and nobody else's."""
    import tls

    made = tls.SSLContext(tls.PROTOCOL_TLS_CLIENT)
    made.verify_mode = tls.CERT_REQUIRED
    made.load_verify_locations(_der(ca))
    return made


def _parted(body, sign):
    """`bytes.partition`, which MicroPython has for str alone on some boards."""
    at = body.find(sign)
    return (body, b"", b"") if at < 0 else (body[:at], sign, body[at + len(sign) :])
