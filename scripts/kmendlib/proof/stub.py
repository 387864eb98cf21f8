# SPDX-License-Identifier: GPL-2.0-only
"""A client of QEMU's GDB stub: packets out, replies in, and what is wrong with them."""

import re
import socket
import time
from pathlib import Path

# Seconds in which the stub answers; the guest stands meanwhile, so its load does not matter.
REPLY_LIMIT = 30.0


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
        self._broken: StubError | GuestGone | None = None
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.connect(str(path))
        except OSError as error:
            self._socket.close()
            raise StubError(f"no GDB stub: {error.strerror}") from None

    def close(self) -> None:
        """Hang up; the stub lets the guest go on."""
        self._socket.close()

    @property
    def broken(self) -> bool:
        """Whether its replies cannot be trusted any more."""
        return self._broken is not None

    def fail(self, why: str) -> StubError | GuestGone:
        """Take note that the stub is not to be trusted any more; return what to raise."""
        return self._fail(StubError(why))

    def _fail(self, error: StubError | GuestGone) -> StubError | GuestGone:
        self._broken = self._broken or error
        return self._broken

    def _write(self, data: bytes) -> None:
        if self._broken:
            raise self._broken
        try:
            self._socket.sendall(data)
        except OSError:
            raise self._fail(GuestGone("the stub is gone")) from None

    def _more(self, seconds: float) -> bool:
        self._socket.settimeout(max(seconds, 0.001))
        try:
            data = self._socket.recv(1 << 16)
        except TimeoutError:
            return False
        except OSError:
            data = b""
        if not data:
            raise self._fail(GuestGone("a reply was cut" if b"$" in self._data else "the stub is gone"))
        self._data += data
        return True

    def receive(self, seconds: float) -> str | None:
        """Return the next packet's text, or None if there is none for so long.

        Raises:
            StubError: its checksum is wrong.
            GuestGone: the guest ended.
        """
        end = time.monotonic() + seconds
        while True:
            start = self._data.find(b"$")
            stop = self._data.find(b"#", start + 1)
            if start >= 0 and 0 <= stop <= len(self._data) - 3:
                packet, check = self._data[start + 1 : stop], self._data[stop + 1 : stop + 3]
                self._data = self._data[stop + 3 :]
                if check.lower() != b"%02x" % (sum(packet) & 0xFF):
                    text = packet[:40].decode("ascii", "replace")
                    raise self._fail(StubError(f"a reply with a wrong checksum: {text}"))
                text = packet.decode("ascii", "replace")
                if text[:1] in ("W", "X"):
                    raise self._fail(GuestGone("the guest ended"))
                self._write(b"+")
                return text
            left = end - time.monotonic()
            if left <= 0:
                return None
            self._more(left)

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

    def stopped(self) -> str | None:
        """Return the words at the next stop, which must come at once; None if it does not."""
        return self.receive(REPLY_LIMIT)

    def interrupt(self) -> None:
        """Stop the guest.

        Raises:
            StubError: it does not stop.
        """
        self._write(b"\x03")
        if self.stopped() is None:
            raise self._fail(StubError("the guest does not stop"))
