"""A host's secret key on a disk: 64 hexadecimal digits in a file that only its owner may read.

Rule: a key is never replaced: a replica that loses it has lost what it promised, and comes back as another member.
"""

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
    except OSError as error:
        raise ConfigError(f"no key in {path}: {error.strerror}", hint="run `dwcp-migrate cluster key`") from error
    except ValueError as error:
        raise ConfigError(f"{path} is no key: not hexadecimal") from error
    if len(seed) != SEED_BYTES:
        raise ConfigError(f"{path} is no key: {len(seed)} bytes, not {SEED_BYTES}")
    return SigningIdentity(seed)


def make_identity(path: Path) -> SigningIdentity:
    """Make a key; one that is there already is read.

    Raises:
        ConfigError: it cannot be written, or what is there is none.
    """
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return read_identity(path)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}", hint="name another file") from error
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(SEED_BYTES) + "\n")
        file.flush()
        os.fsync(file.fileno())
    return read_identity(path)
