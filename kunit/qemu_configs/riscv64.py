# SPDX-License-Identifier: GPL-2.0-only
"""riscv64 for kunit.py, with two CPUs: kunit.py --qemu_config=.../riscv64.py

The firmware is named by its path: without it QEMU loads one of its own, or
none, and then no test runs.  Without frame pointers a stack trace names every
word on the stack that may be an address in code, and takes that long.  A
kernel that is portable has EFI, which nothing here needs.
"""
import os.path
import sys

from ..qemu_config import QemuArchParams

OPENSBI = '/usr/share/qemu/opensbi-riscv64-generic-fw_dynamic.bin'

if not os.path.isfile(OPENSBI):
	sys.exit(f'riscv64.py: no OpenSBI firmware at {OPENSBI}')

QEMU_ARCH = QemuArchParams(linux_arch='riscv',
			   kconfig='''
CONFIG_NONPORTABLE=y
CONFIG_ARCH_VIRT=y
CONFIG_FPU=y
CONFIG_FRAME_POINTER=y
CONFIG_RISCV_ISA_C=y
CONFIG_RISCV_SBI=y
CONFIG_SERIAL_8250=y
CONFIG_SERIAL_8250_CONSOLE=y
CONFIG_SERIAL_OF_PLATFORM=y
CONFIG_PCI=y
CONFIG_PCI_HOST_GENERIC=y''',
			   qemu_arch='riscv64',
			   kernel_path='arch/riscv/boot/Image',
			   kernel_command_line='console=ttyS0',
			   extra_qemu_params=['-machine', 'virt',
					      '-cpu', 'max',
					      '-smp', '2',
					      '-bios', OPENSBI])

# How kmend knows an image: ELF's number of the machine, and what else is at which place.
IMAGE = {'elf': 243, 'magic': (0x38, b'RSC\x05')}

# For kmend: what the kernel is told where QEMU counts instructions for a clock (-icount).
TIMED = ()

# For kmend's races: registers by their numbers at GDB's remote protocol, and how a
# call looks.
GDB = {'arguments': (10, 11, 12, 13), 'stack': 2, 'pc': 32, 'returns': 1}


def gdb_call(code, at):
	"""Length and offset of the call, or the jump that is one, at a place of the code, or None."""
	if at % 2:
		return None
	word = int.from_bytes(code[at:at + 4], 'little')
	then = int.from_bytes(code[at + 4:at + 8], 'little')
	# auipc ra; jalr ra, ra, or with t1: auipc t1; jr t1
	if (word & 0xfff, then & 0xfffff) in ((0x097, 0x080e7), (0x317, 0x30067)):
		offset = ((word & 0xfffff000) + (then >> 20) - (then >> 31 << 12)) & 0xffffffff
		return 8, offset - (offset >> 31 << 32)
	# jal ra, or j
	if word & 0xfff in (0x0ef, 0x06f):
		offset = (word >> 21 & 0x3ff) << 1 | (word >> 20 & 1) << 11 | word & 0xff000
		return 4, offset - (word >> 31 << 20)
	return None
