# SPDX-License-Identifier: GPL-2.0-only
"""loongarch64 for kunit.py, with two CPUs: kunit.py --qemu_config=.../loongarch64.py

Without firmware the guest ends only through the machine's syscon node.
"""
from ..qemu_config import QemuArchParams

QEMU_ARCH = QemuArchParams(linux_arch='loongarch',
			   kconfig='''
CONFIG_ACPI=y
CONFIG_EFI=y
CONFIG_PCI=y
CONFIG_PCI_HOST_GENERIC=y
CONFIG_MFD_SYSCON=y
CONFIG_POWER_RESET=y
CONFIG_POWER_RESET_SYSCON=y
CONFIG_POWER_RESET_SYSCON_POWEROFF=y
CONFIG_SERIAL_8250=y
CONFIG_SERIAL_8250_CONSOLE=y
CONFIG_SERIAL_OF_PLATFORM=y''',
			   qemu_arch='loongarch64',
			   kernel_path='vmlinux',
			   kernel_command_line='console=ttyS0',
			   extra_qemu_params=['-machine', 'virt',
					      '-cpu', 'max',
					      '-smp', '2'])

# How kmend knows an image: ELF's number of the machine, and what else is at which place.
# Without ACPI's tables a distribution's kernel looks for a keyboard where nothing is.
IMAGE = {'elf': 258, 'magic': (0x38, b'\xcd\x23\x82\x81'),
	 'words': ('initcall_blacklist=i8042_init',)}

# For kmend: what the kernel is told where QEMU counts instructions for a clock (-icount).
TIMED = ()

# For kmend's races: registers by their numbers at GDB's remote protocol, and how a
# call looks.
GDB = {'arguments': (4, 5, 6, 7), 'stack': 3, 'pc': 33, 'returns': 1}


def gdb_call(code, at):
	"""Length and offset of the call, or the jump that is one, at a place of the code, or None."""
	word = int.from_bytes(code[at:at + 4], 'little')
	if at % 4 or word >> 26 not in (0x15, 0x14):
		return None
	offset = (word & 0x3ff) << 16 | word >> 10 & 0xffff
	return 4, 4 * (offset - (offset >> 25 << 26))
