"""The MQTT doorbell: a line to the broker on which the server says "check now".

MQTT 3.1.1, one subscription at QoS 0; what a message says is not believed, it only rings. A line that
breaks is made again after a while. `step` never waits for more than a connection.
"""

import socket
import struct
import time

from skylift.http import context, server_of

KEEP_ALIVE_S = 60
AGAIN_MS = 15000
MESSAGE_MOST = 4096
CONNECTED, SUBSCRIBED, PUBLISHED = 0x20, 0x90, 0x30


def _string(value):
    body = value.encode()
    return struct.pack(">H", len(body)) + body


class Doorbell:
    """`url`: `mqtt://HOST[:1883]` or `mqtts://HOST[:8883]`. The name is the device's, the password its
    token."""

    def __init__(self, client, url, ca=None):
        scheme, _, rest = url.partition("://")
        if scheme not in ("mqtt", "mqtts"):
            raise ValueError("config: mqtt is '" + url + "': must be mqtt://HOST:PORT or mqtts://HOST:PORT")
        usual = "" if ":" in rest else (":8883" if scheme == "mqtts" else ":1883")
        way = {"mqtt": "http://", "mqtts": "https://"}[scheme]
        self._host, self._port, self._tls = server_of(way + rest + usual)
        self._ca = ca
        self._client = client
        self._line = None
        self._raw = b""
        self._next = time.ticks_ms()
        self.connected = False

    def step(self):
        """Rings the client when the server says so."""
        now = time.ticks_ms()
        try:
            if self._line is None:
                if self._client.token() and time.ticks_diff(now, self._next) >= 0:
                    self._open()
                return
            if time.ticks_diff(now, self._heard_at) > KEEP_ALIVE_S * 1500:
                return self._away()  # not even what it was asked: the line is dead
            if time.ticks_diff(now, self._next) >= 0:
                self._send(0xC0, b"")  # still here
                self._next = time.ticks_add(now, KEEP_ALIVE_S * 500)
            self._listen()
        except (OSError, ValueError):
            self._away()

    def close(self):
        try:
            if self._line:
                self._line.close()
        except OSError:
            pass  # it is gone anyway
        self._line, self._raw, self.connected = None, b"", False

    def _away(self):
        self.close()
        self._next = time.ticks_add(time.ticks_ms(), AGAIN_MS)

    def _open(self):
        name = self._client.config.device_id
        where = socket.getaddrinfo(self._host, self._port, 0, socket.SOCK_STREAM)[0][-1]
        plain = self._line = socket.socket()
        plain.settimeout(10)
        plain.connect(where)
        if self._tls:
            self._line = context(self._ca).wrap_socket(plain, server_hostname=self._host)
        flags = struct.pack(">BBH", 4, 0xC2, KEEP_ALIVE_S)  # level 4; name, password, a clean session
        who = _string(name) + _string(name) + _string(self._client.token())
        self._send(0x10, _string("MQTT") + flags + who)
        plain.setblocking(False)
        self._heard_at = time.ticks_ms()
        self._next = time.ticks_add(time.ticks_ms(), KEEP_ALIVE_S * 500)

    def _send(self, kind, body):
        head, left = bytes([kind]), len(body)
        while True:
            head += bytes([left & 127 | (128 if left > 127 else 0)])
            left >>= 7
            if not left:
                break
        said = head + body
        if self._line.write(said) != len(said):
            raise OSError("the line is full")

    def _listen(self):
        piece = self._line.read(256)
        if piece is None:
            return
        if not piece:
            raise OSError("the broker closed the line")
        self._raw += piece
        self._heard_at = time.ticks_ms()
        while (found := self._packet()) is not None:
            self._heard(found[0], found[1])

    def _packet(self):
        """(kind, body) of the next whole one, or None."""
        length, at = 0, 1
        while True:
            if at >= len(self._raw):
                return None
            byte = self._raw[at]
            length |= (byte & 127) << 7 * (at - 1)
            at += 1
            if byte < 128:
                break
            if at > 4:
                raise ValueError("no MQTT")
        if length > MESSAGE_MOST:
            raise ValueError("a message is larger than this device takes")
        if len(self._raw) < at + length:
            return None
        found = self._raw[0] & 0xF0, self._raw[at : at + length]
        self._raw = self._raw[at + length :]
        return found

    def _heard(self, kind, body):
        if kind == CONNECTED:
            if body[1:2] != b"\0":
                raise OSError("the broker does not let this device in")
            topic = "devices/" + self._client.config.device_id + "/ota"
            self._send(0x82, struct.pack(">H", 1) + _string(topic) + b"\0")
        elif kind == SUBSCRIBED:
            if body[-1:] == b"\x80":
                raise OSError("the broker does not let this device listen")
            self.connected = True
            self._client.ring()  # something may have been said while we were away
        elif kind == PUBLISHED:
            self._client.ring()
