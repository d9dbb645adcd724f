"""Settings of libvirt's qemu.conf that migrations depend on (pure)."""

import re
from pathlib import Path
from typing import Final

QEMU_CONF: Final = Path("etc/libvirt/qemu.conf")
"""Path below the root of the host's files; on most systems only root may read it."""


def integer_setting(text: str, key: str) -> int | None:
    """Find an integer setting of a libvirt configuration file.

    Args:
        text: of the file.
        key: name of the setting.

    Returns:
        The first value that is set; None where there is none. Comments do not count.
    """
    found = re.search(rf"^\s*{re.escape(key)}\s*=\s*(-?\d+)", text, re.MULTILINE)
    return int(found.group(1)) if found else None


def text_setting(text: str, key: str) -> str:
    """Find a quoted setting of a libvirt configuration file.

    Args:
        text: of the file.
        key: name of the setting.

    Returns:
        The first value that is set, without its quotes; empty where there is none.
    """
    found = re.search(rf"^\s*{re.escape(key)}\s*=\s*[\"']([^\"'\n]*)[\"']", text, re.MULTILINE)
    return found.group(1) if found else ""
