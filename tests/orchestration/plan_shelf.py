"""Plans kept in memory, see `orchestration.plan_store.PlanStore`."""

import threading

import msgspec

from dwcp_migrate.api.plans import PlanRecord, StoredPlan, decode_record, encode_record
from dwcp_migrate.errors import StalePlanError


class PlanShelf:
    """What an agent's book is to commands; `before_put` may come before any change."""

    def __init__(self) -> None:
        self.plans: dict[int, StoredPlan] = {}
        self._lock = threading.Lock()

    def all(self) -> list[StoredPlan]:
        return [self.plans[number] for number in sorted(self.plans)]

    def put(self, record: PlanRecord, revision: int) -> StoredPlan:
        with self._lock:
            number = record.id or max(self.plans, default=0) + 1
            known = self.plans.get(number)
            if (known.revision if known else 0) != revision:
                raise StalePlanError("stale")
            kept = decode_record(encode_record(msgspec.structs.replace(record, id=number)))
            self.plans[number] = StoredPlan(revision=revision + 1, record=kept)
            return self.plans[number]

    def record(self, number: int = 1) -> PlanRecord:
        return self.plans[number].record
