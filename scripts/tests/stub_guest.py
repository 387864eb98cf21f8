# SPDX-License-Identifier: GPL-2.0-only
"""A GDB stub that plays a small guest of two vCPUs, well and badly; as a program, the race of pci-cfg-wait for QEMU.

A vCPU goes through its program again and again: program counter, first argument, return address.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from kmendlib.tree import arches, diagram
from kmendlib.tree.arches import Registers

State = tuple[int, int, int]
STACK = 0x6000


class Guest:
    """A stub with a guest; `fault` says what it does wrong, from the packet with the number `at` on."""

    def __init__(
        self,
        path: Path,
        programs: Sequence[list[State]],
        registers: Registers,
        memory: Callable[[int, int], bytes],
        lock: tuple[int, int],
        writes_at: int,
        fault: str = "",
        at: int = 40,
    ) -> None:
        """Listen.

        Args:
            path: the socket.
            programs: of the two vCPUs.
            registers: how the architecture has them.
            memory: returns what is at an address.
            lock: where one waits, while the other one stands there.
            writes_at: where a program writes to what is watched.
            fault: what is wrong with the stub.
            at: from which packet on.
        """
        self.programs, self.registers, self.read = programs, registers, memory
        self.lock, self.writes_at, self.fault, self.at = lock, writes_at, fault, at
        self.positions = [0, 0]
        self.breakpoints: set[int] = set()
        self.current = 0
        self.packets = 0
        self.writes: set[int] = set()
        self.released = False
        self.ended = False
        self.hangs = threading.Event()
        self.path = path
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(str(path))
        self.server.listen()
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self) -> None:
        """Answer until the client hangs up."""
        connection, _ = self.server.accept()
        with connection, contextlib.suppress(OSError):
            data = b""
            while more := connection.recv(4096):
                data += more
                while found := re.search(rb"\$([^#]*)#..|\x03", data):
                    data = data[found.end() :]
                    self.packets += 1
                    broken = self.packets >= self.at
                    if broken and self.fault == "dies":
                        return
                    if broken and self.fault == "exits":
                        connection.sendall(b"+$W00#b7")
                        return
                    reply = self.answer((found[1] or b"\x03").decode())
                    packet = b"+$%s#%02x" % (reply.encode(), sum(reply.encode()) & 0xFF)
                    if broken and self.fault == "cut":
                        connection.sendall(packet[: len(packet) // 2])
                        return
                    if broken and self.fault == "checksum":
                        packet = packet[:-2] + b"zz"
                    if broken and self.fault == "hangs":
                        self.hangs.set()
                        time.sleep(600)
                    if broken and self.fault == "late":
                        time.sleep(1.5)
                    if broken and self.fault == "garbage":
                        packet = b"+$hello#14"
                    if broken and self.fault == "error":
                        packet = b"+$E22#a9"
                    connection.sendall(packet)

    def answer(self, text: str) -> str:
        """Return the reply to a packet."""
        if text == "qfThreadInfo":
            return "m1,2"
        if text == "qsThreadInfo":
            return "l"
        if text.startswith("Hg"):
            self.current = int(text[2:]) - 1
        if text == "g":
            return b"".join(value.to_bytes(8, "little") for value in self.values()).hex()
        if text[0] == "m":
            address, size = (int(word, 16) for word in text[1:].split(","))
            data = self.state(self.current)[2].to_bytes(8, "little") if address == STACK else self.read(address, size)
            return data.ljust(size, b"\0")[:size].hex()
        if text.startswith("Z1"):
            self.breakpoints.add(int(text.split(",")[1], 16))
        if text.startswith("z1"):
            self.breakpoints.discard(int(text.split(",")[1], 16))
        if text.startswith("Z2"):
            self.writes.add(int(text.split(",")[1], 16))
        if text.startswith("z2"):
            self.writes.discard(int(text.split(",")[1], 16))
        if text.startswith("vCont;s:"):
            self.advance(int(text[8:]) - 1)
            return f"T05thread:{int(text[8:]):02x};"
        if text.startswith("vCont;c:"):
            return self.go_on([int(part[2:]) - 1 for part in text.split(";")[1:]])
        if text == "D":
            self.released = True
        if text == "k":
            self.ended = True
        return "T02thread:01;" if text == "\x03" else "OK"

    def values(self) -> list[int]:
        """Return the registers of the vCPU that is asked for."""
        known = self.registers
        pc, argument, back = self.state(self.current)
        values = [0] * (1 + max(known.pc, known.stack, known.returns or 0, *known.arguments))
        values[known.arguments[0]], values[known.pc] = argument, pc
        # Where the return address lies on the stack it is gone from there when the function has returned.
        values[known.stack] = STACK if known.returns is not None or back else STACK + 8
        if known.returns is not None:
            values[known.returns] = back
        return values

    def state(self, cpu: int) -> State:
        """Return where a vCPU stands."""
        program = self.programs[cpu]
        return program[self.positions[cpu] % len(program)]

    def advance(self, cpu: int) -> None:
        """Let a vCPU take a step."""
        if (self.state(cpu)[0], self.state(1 - cpu)[0]) != self.lock:
            self.positions[cpu] += 1

    def go_on(self, cpus: list[int]) -> str:
        """Let some vCPUs run; return the stop."""
        for _ in range(100000):
            for cpu in cpus:
                self.advance(cpu)
                if self.state(cpu)[0] == self.writes_at and self.writes:
                    return f"T05thread:{cpu + 1:02x};watch:{min(self.writes):x};"
            for cpu in cpus:
                if self.state(cpu)[0] in self.breakpoints:
                    named = 2 - cpu if self.fault == "wrong vCPU" else cpu + 1
                    return f"T05thread:{named:02x};"
        return "W00"


# The kernel of the race of pci-cfg-wait, as far as it is played.
TICK, UNLOCK, WAKE, WAIT, DEL, LOCK, WAKER = range(0x1000, 0x8000, 0x1000)
QUEUE, ENTRY, OTHER = 0x9000, 0xA000, 0xB000
SYMBOLS = {
    diagram.TICK: TICK,
    "pci_cfg_access_unlock": UNLOCK,
    "__wake_up": WAKE,
    "pci_wait_cfg": WAIT,
    "__list_del_entry_valid_or_report": DEL,
    "do_raw_spin_lock": LOCK,
    "default_wake_function": WAKER,
    "pci_cfg_wait": QUEUE,
}
# A call of a function so many bytes away, and how long it is, by architecture.
_CALL = {
    "x86_64": (5, lambda away: b"\xe8" + (away - 5).to_bytes(4, "little", signed=True)),
    "loongarch64": (
        4,
        lambda away: (0x15 << 26 | (away >> 2 & 0xFFFF) << 10 | away >> 18 & 0x3FF).to_bytes(4, "little"),
    ),
}
_QUEUER = [(TICK, 0, 0), (WAIT, 0, 0x10), (WAIT + 0x10, ENTRY, 0), (WAIT + 0x20, 0, 0)]
_LOCKS = [(LOCK, QUEUE, WAKE + 0x10), (LOCK + 4, 0, 1), (WAKE + 0x10, 0, 0)]
_CALLS = {UNLOCK: WAKE, WAIT: DEL}


def main(path: str, arch: str, plays: str) -> None:
    """Play the race of pci-cfg-wait: print the symbols as the guest's init does, then answer.

    Args:
        path: the stub's socket.
        arch: the architecture.
        plays: ``broken``, ``held``, ``nobody``, who comes to no place, ``no stub``, or ``hangs`` with a vCPU parked.
    """
    length, code = _CALL[arch]

    def memory(address: int, size: int) -> bytes:
        if address in _CALLS:
            return b"\0" * 0x10 + code(_CALLS[address] - address - 0x10)
        return ENTRY.to_bytes(8, "little") if address == OTHER + 24 else b""

    back = UNLOCK + 0x10 + length
    waker = [(TICK, 0, 0), (UNLOCK, 0, 0x10), (UNLOCK + 0x10, QUEUE, 0), (WAKE, QUEUE, back)]
    waker += [*(_LOCKS if plays == "held" else ()), (WAKER, OTHER, WAKE + 0x20), (WAKE + 0x20, 0, 0), (back, 0, 0)]
    registers = arches.load(arch).registers
    assert registers
    programs = [_QUEUER, waker] if plays != "nobody" else [[(TICK, 0, 0)], [(TICK, 0, 0)]]
    place = Path(path) if plays != "no stub" else Path(path).with_name("elsewhere")
    fault = ("hangs", 90) if plays == "hangs" else ("", 0)
    guest = Guest(place, programs, registers, memory, (LOCK + 4, WAIT + 0x10), WAIT + 0x20, *fault)
    for name, address in SYMBOLS.items():
        print(f"kmend-symbol: {address:x} 40 {name}")
    print("kmend-symbol: end", flush=True)
    if plays == "hangs":
        guest.hangs.wait()
        Path(os.environ["lab"], "parked").write_text(str(os.getpid()), encoding="ascii")
    if plays != "no stub":
        guest.thread.join()


if __name__ == "__main__":
    main(*sys.argv[1:])
