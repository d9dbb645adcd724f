"""A placement rule: what operators write, the cluster state keeps and placement respects.

Operators' files, cluster state and placement add limits of their own; meaning, names and defaults are here.
"""

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

RuleKind = Literal["together", "apart", "spread", "pin", "exclude"]
RuleLevel = Literal["host", "rack", "datacentre", "region"]
RULE_LEVELS: Final[tuple[RuleLevel, ...]] = ("host", "rack", "datacentre", "region")

DOMAINS_OF_RULE_MAX: Final = 200_000
"""All domains of the largest fleet that placement takes."""


class PlacementRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One rule about domains.

    Attributes:
        kind: `together` in one zone; `apart`: at most `limit` in a zone; `spread`: as evenly as members and zones
            allow; `pin` to `zones`; `exclude` from `zones`.
        domains: its members, by name.
        level: what a zone is.
        zones: names of hosts, racks, datacentres or regions, of `pin` and `exclude`.
        limit: of `apart`.
        hard: is never broken; a soft one costs `weight` for each domain that is too many in a zone (`apart`), for each
            pair that is parted (`together`), for each domain in the wrong zone (`pin`, `exclude`).
        weight: in units of the balance objective, see `placement.arrays`.
    """

    name: Annotated[str, Meta(min_length=1, max_length=255)]
    kind: RuleKind
    domains: Annotated[
        list[Annotated[str, Meta(min_length=1, max_length=255)]], Meta(min_length=1, max_length=DOMAINS_OF_RULE_MAX)
    ]
    level: RuleLevel = "host"
    zones: list[str] = []
    limit: Annotated[int, Meta(ge=1)] = 1
    hard: bool = True
    weight: Annotated[float, Meta(gt=0, le=1e6)] = 1.0
