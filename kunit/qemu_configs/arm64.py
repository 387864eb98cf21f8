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
