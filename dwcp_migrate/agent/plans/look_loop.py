"""The loop of a service that looks at kept records again and again."""

from collections.abc import Awaitable, Callable

from dwcp_migrate.errors import DwcpError
from dwcp_migrate.logs import get_logger

log = get_logger(component="plans")


async def keep_looking(
    what: str, look: Callable[[], Awaitable[object]], pause: Callable[[], Awaitable[object]]
) -> None:
    """Look until cancelled. A look that fails is followed by the next one.

    Args:
        what: is looked at, for the log.
        look: once.
        pause: waits for the next look.
    """
    while True:
        try:
            await look()
        except DwcpError:
            pass  # the fleet cannot be asked
        except Exception:  # a fault of ours in one look must not end all later ones
            log.exception("a look failed", at=what)
        await pause()
