# SPDX-License-Identifier: GPL-2.0-only
"""x86_64 for kunit.py, with two CPUs: kunit.py --qemu_config=.../x86_64.py"""
from ..qemu_config import QemuArchParams

QEMU_ARCH = QemuArchParams(linux_arch='x86_64',
			   kconfig='''
CONFIG_ACPI=y
CONFIG_HYPERVISOR_GUEST=y
CONFIG_PARAVIRT=y
CONFIG_PCI=y
CONFIG_PCI_MMCONFIG=y
CONFIG_SERIAL_8250=y
CONFIG_SERIAL_8250_CONSOLE=y''',
			   qemu_arch='x86_64',
			   kernel_path='arch/x86/boot/bzImage',
			   # A host under load may not deliver the timer's first ticks.
			   kernel_command_line='console=ttyS0 no_timer_check',
			   # While the boot CPU is identified its LA57 is not known, and an
			   # interrupt would make KASAN take 5-level addresses for wild.
			   extra_qemu_params=['-machine', 'q35',
					      '-cpu', 'max,la57=off',
					      '-smp', '2',
					      '-bios', 'qboot.rom'])

# How kmend knows an image: ELF's number of the machine, and what else is at which place.
IMAGE = {'elf': 62, 'magic': (0x202, b'HdrS')}
# For kmend: what the kernel is told where QEMU counts instructions for a clock (-icount).
# The local APIC's timer fails its check there, after a third of the boot.
TIMED = ('nolapic_timer',)

# For kmend's races: registers by their numbers at GDB's remote protocol, and how a
# call looks.  A return address that no register has lies on top of the stack.
GDB = {'arguments': (5, 4, 3, 2), 'stack': 7, 'pc': 16, 'returns': None}


def gdb_call(code, at):
	"""Length and offset of the call, or the jump that is one, at a place of the code, or None."""
	if code[at] not in (0xe8, 0xe9) or at + 5 > len(code):
		return None
	return 5, 5 + int.from_bytes(code[at + 1:at + 5], 'little', signed=True)
