# SPDX-License-Identifier: GPL-2.0-only
"""riscv64 for kunit.py, with two CPUs: kunit.py --qemu_config=.../riscv64.py

The firmware is named by its path: without it QEMU loads one of its own, or
none, and then no test runs.
"""
import os.path
import sys

from ..qemu_config import QemuArchParams

OPENSBI = '/usr/share/qemu/opensbi-riscv64-generic-fw_dynamic.bin'

if not os.path.isfile(OPENSBI):
	sys.exit(f'riscv64.py: no OpenSBI firmware at {OPENSBI}')

QEMU_ARCH = QemuArchParams(linux_arch='riscv',
			   kconfig='''
CONFIG_ARCH_VIRT=y
CONFIG_FPU=y
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
