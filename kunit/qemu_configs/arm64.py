# SPDX-License-Identifier: GPL-2.0-only
"""arm64 for kunit.py, with two CPUs: kunit.py --qemu_config=.../arm64.py"""
from ..qemu_config import QemuArchParams

QEMU_ARCH = QemuArchParams(linux_arch='arm64',
			   kconfig='''
CONFIG_PCI=y
CONFIG_PCI_HOST_GENERIC=y
CONFIG_SERIAL_AMBA_PL011=y
CONFIG_SERIAL_AMBA_PL011_CONSOLE=y''',
			   qemu_arch='aarch64',
			   kernel_path='arch/arm64/boot/Image.gz',
			   kernel_command_line='console=ttyAMA0',
			   extra_qemu_params=['-machine', 'virt,gic-version=3',
					      '-cpu', 'max,pauth-impdef=on',
					      '-smp', '2'])

# How kmend knows an image: ELF's number of the machine, and what else is at which place.
IMAGE = {'elf': 183, 'magic': (0x38, b'ARM\x64')}

# For kmend: what the kernel is told where QEMU counts instructions for a clock (-icount).
TIMED = ()

# For kmend's races: registers by their numbers at GDB's remote protocol, and how a
# call looks.
GDB = {'arguments': (0, 1, 2, 3), 'stack': 31, 'pc': 32, 'returns': 30}


def gdb_call(code, at):
	"""Length and offset of the call, or the jump that is one, at a place of the code, or None."""
	word = int.from_bytes(code[at:at + 4], 'little')
	if at % 4 or word >> 26 not in (0x25, 0x05):
		return None
	offset = word & 0x3ffffff
	return 4, 4 * (offset - (offset >> 25 << 26))
