"""Reading of a record that agents keep, and that anybody may have written."""

from typing import TypeVar

import msgspec

from dwcp_migrate.errors import PlacementError

T = TypeVar("T")


def decode_kept(data: bytes, kind: type[T], what: str, bytes_max: int) -> T:
    """Read a record.

    Args:
        data: JSON.
        kind: what it has to be.
        what: names it in errors.
        bytes_max: of it.

    Raises:
        PlacementError: it is no such record, or too large.
    """
    if len(data) > bytes_max:
        raise PlacementError(f"{what} takes {len(data)} bytes, more than {bytes_max}")
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.MsgspecError as error:
        raise PlacementError(f"{what}: {error}", hint="see docs/placement.md") from error
