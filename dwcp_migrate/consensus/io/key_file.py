"""A host's secret key on a disk: 64 hexadecimal digits in a file that only its owner and the agent's group may read.

Rule: a key is never replaced: a replica that loses it has lost what it promised, and comes back as another member.
"""

import contextlib
import os
import secrets
from pathlib import Path

from dwcp_migrate.consensus.pbft.model.keys import SEED_BYTES, SigningIdentity
from dwcp_migrate.errors import ConfigError


def read_identity(path: Path) -> SigningIdentity:
    """Read a host's secret key.

    Raises:
        ConfigError: it is not there, or is none.
    """
    try:
        seed = bytes.fromhex(path.read_text().strip())
    except PermissionError as error:
        hint = f"let the agent read it: chgrp dwcp-migrate {path} && chmod 0640 {path}"
        raise ConfigError(f"no permission to read the key {path}", hint=hint) from error
    except OSError as error:
        raise ConfigError(f"no key in {path}: {error.strerror}", hint="run `dwcp-migrate cluster key`") from error
    except ValueError as error:
        raise ConfigError(f"{path} is no key: not hexadecimal") from error
    if len(seed) != SEED_BYTES:
        raise ConfigError(f"{path} is no key: {len(seed)} bytes, not {SEED_BYTES}")
    return SigningIdentity(seed)


def make_identity(path: Path, group: int | None = None) -> SigningIdentity:
    """Make a key; one that is there already is read.

    Args:
        path: of the file.
        group: id of the group that may read it too, also where it is there already; None for the owner alone.

    Raises:
        ConfigError: it cannot be written, or what is there is none.
    """
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            _write_new(path)
        if group is not None:
            os.chown(path, -1, group)
            path.chmod(0o640)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}", hint="name another file") from error
    return read_identity(path)


def _write_new(path: Path) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(SEED_BYTES) + "\n")
        file.flush()
        os.fsync(file.fileno())
