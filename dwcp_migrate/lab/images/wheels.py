"""Wheels of this project's dependencies for the Python of the booted hypervisors, fetched once a machine.

The rule here: what is installed without an index comes from these wheels alone, so that installing works offline. The
libvirt binding is left out: hosts take it from their distribution, as they take its library.
"""

import re
import sys
from importlib import metadata
from pathlib import Path
from typing import Final

from dwcp_migrate.lab.commands import run_program
from dwcp_migrate.lab.images import cache

DISTRIBUTION: Final = "dwcp-migrate"
TARGET_PYTHON: Final = "3.13"
"""Debian 13's."""

PLATFORMS: Final = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
FROM_DEBIAN: Final = "libvirt-python"
FROM_SOURCE: Final = "pysyncobj"
"""Published as source only; it is plain Python, so that a wheel made by any Python fits every other."""
BUILD: Final = "setuptools>=77"
"""Requirements for building the project's own wheel, as pyproject.toml has them."""

FETCH_S_MAX: Final = 600.0
"""Ten seconds with a near index."""


def wanted() -> list[str]:
    """Return the requirements of the installed package, without its extras."""
    required = metadata.requires(DISTRIBUTION) or []
    return [each for each in required if "extra ==" not in each and not _is(each, FROM_DEBIAN)]


def _is(requirement: str, distribution: str) -> bool:
    return re.match(rf"{distribution}\b", requirement) is not None


def directory() -> Path:
    """Return the directory of the wheels, fetching them first where this machine has none.

    Raises:
        LabError: the package index does not answer or lacks one.
    """
    requirements = [*sorted(wanted()), BUILD]

    def fetch(path: Path) -> None:
        platforms = [f"--platform={platform}" for platform in PLATFORMS]
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
        only = ["--only-binary=:all:", f"--python-version={TARGET_PYTHON}", *platforms]
        binary = [each for each in requirements if not _is(each, FROM_SOURCE)]
        source = [each for each in requirements if _is(each, FROM_SOURCE)]
        run_program([*pip, "download", f"--dest={path}", *only, *binary], timeout_s=FETCH_S_MAX)
        run_program([*pip, "wheel", "--no-deps", f"--wheel-dir={path}", *source], timeout_s=FETCH_S_MAX)

    return cache.entry("wheels", cache.digest(TARGET_PYTHON, *PLATFORMS, *requirements), fetch)
