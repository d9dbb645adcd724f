"""Settings of libvirt's qemu.conf that migrations depend on (pure)."""

import re
from pathlib import Path
from typing import Final

QEMU_CONF: Final = Path("etc/libvirt/qemu.conf")
"""Below the root of the host's files. It is root's on most systems."""


def setting(text: str, key: str) -> int | None:
    """Find an integer setting of a libvirt configuration file."""
    found = re.search(rf"^\s*{re.escape(key)}\s*=\s*(-?\d+)", text, re.MULTILINE)
    return int(found.group(1)) if found else None


def text_setting(text: str, key: str) -> str:
    """Find a quoted setting of a libvirt configuration file; empty where it is not set."""
    found = re.search(rf"^\s*{re.escape(key)}\s*=\s*[\"']([^\"'\n]*)[\"']", text, re.MULTILINE)
    return found.group(1) if found else ""
