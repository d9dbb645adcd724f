"""A ceiling over the rates of all migrations of a link (pure): at no moment do they add up to more.

Migrations that are held to a rate keep it as far as there is room; those that are not share the rest, so that none runs
without a rate under a ceiling.
"""

from collections.abc import Mapping
from typing import Final

LEAST_SHARE: Final = 0.05
"""Least rate of a migration for which nothing is left, as a part of an even share of the ceiling."""


def cap_rates(rates: Mapping[str, float], ceiling: float) -> dict[str, float]:
    """Bring rates under a ceiling.

    Args:
        rates: by migration, bytes a second; 0 for one that is not held.
        ceiling: bytes a second for all together, above 0.

    Returns:
        A rate above 0 for each; together at most `ceiling`.
    """
    if not rates:
        return {}
    least = LEAST_SHARE * ceiling / len(rates)
    held = {identity: max(rate, least) for identity, rate in rates.items() if rate > 0}
    free = [identity for identity in rates if identity not in held]
    wanted = sum(held.values())
    room = ceiling - least * len(free)
    shrink = min(1.0, room / wanted) if wanted else 1.0
    each = (ceiling - wanted * shrink) / len(free) if free else 0.0
    return {identity: held[identity] * shrink if identity in held else each for identity in rates}
