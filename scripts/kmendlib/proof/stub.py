# SPDX-License-Identifier: GPL-2.0-only
"""A client of QEMU's GDB stub: packets out, replies in, and what is wrong with them."""

import re
import socket
import time
from pathlib import Path

# Seconds in which the stub answers; the guest stands meanwhile, so its load does not matter.
REPLY_LIMIT = 30.0
_PACKET = re.compile(rb"\$([^#]*)#(..)", re.DOTALL)


class StubError(Exception):
    """The stub did not do what the protocol says."""


class GuestGone(Exception):
    """The guest has ended."""


class Stub:
    """A client of QEMU's GDB stub."""

    def __init__(self, path: Path) -> None:
        """Connect, which stops the guest.

        Args:
            path: the stub's socket.

        Raises:
            StubError: there is no stub.
        """
        self._data = b""
        # What went wrong: nothing that comes later can be trusted.
        self.broken: StubError | GuestGone | None = None
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.connect(str(path))
        except OSError as error:
            self._socket.close()
            raise StubError(f"no GDB stub: {error.strerror}") from None

    def close(self) -> None:
        """Hang up; the stub lets the guest go on."""
        self._socket.close()

    def _fail(self, error: StubError | GuestGone) -> StubError | GuestGone:
        self.broken = self.broken or error
        return self.broken

    def _write(self, data: bytes) -> None:
        if self.broken:
            raise self.broken
        try:
            self._socket.sendall(data)
        except OSError:
            raise self._fail(GuestGone("the stub is gone")) from None

    def receive(self, seconds: float) -> str | None:
        """Return the next packet's text, or None if there is none for so long.

        Raises:
            StubError: its checksum is wrong.
            GuestGone: the guest ended.
        """
        end = time.monotonic() + seconds
        while not (packet := _PACKET.search(self._data)):
            left = end - time.monotonic()
            if left <= 0:
                return None
            self._socket.settimeout(left)
            try:
                data = self._socket.recv(1 << 16)
            except TimeoutError:
                return None
            except OSError:
                data = b""
            if not data:
                raise self._fail(GuestGone("a reply was cut" if b"$" in self._data else "the stub is gone"))
            self._data += data
        self._data = self._data[packet.end() :]
        text = packet[1].decode("ascii", "replace")
        if packet[2].lower() != b"%02x" % (sum(packet[1]) & 0xFF):
            raise self._fail(StubError(f"a reply with a wrong checksum: {text[:40]}"))
        if text[:1] in ("W", "X"):
            raise self._fail(GuestGone("the guest ended"))
        self._write(b"+")
        return text

    def send(self, text: str) -> None:
        """Send a packet."""
        self._write(b"$%s#%02x" % (text.encode(), sum(text.encode()) & 0xFF))

    def ask(self, text: str) -> str:
        """Send a packet and return the reply.

        Raises:
            StubError: there is none, or it is an error.
        """
        self.send(text)
        reply = self.receive(REPLY_LIMIT)
        # A vCPU that was stopped at the same time is found by where it stands.
        while reply is not None and text != "?" and re.match(r"T[0-9a-f]{2}", reply):
            reply = self.receive(REPLY_LIMIT)
        if reply is None:
            raise self._fail(StubError(f"no reply to {text.split(',')[0]} within {REPLY_LIMIT:.0f} seconds"))
        if not reply or re.fullmatch(r"E[0-9a-f]{2}", reply):
            raise StubError(f"{text}: the stub says {reply or 'nothing'}")
        return reply

    def order(self, text: str) -> None:
        """Ask for something that is done or not.

        Raises:
            StubError: it is not.
        """
        reply = self.ask(text)
        if reply != "OK":
            raise StubError(f"{text}: the stub says {reply[:40]}")

    def stopped(self, why: str) -> None:
        """Wait for a stop that must come at once.

        Args:
            why: what is wrong where it does not.

        Raises:
            StubError: it does not.
        """
        if self.receive(REPLY_LIMIT) is None:
            raise self._fail(StubError(why))

    def interrupt(self) -> None:
        """Stop the guest.

        Raises:
            StubError: it does not stop.
        """
        self._write(b"\x03")
        self.stopped("the guest does not stop")
