"""Batching of requests: how many go into one proposal, and when it is made.

Rule: natural batching. An idle group proposes what it has at once; a busy one proposes what has gathered meanwhile. A
proposal costs each replica the same whether it carries one request or a hundred, so a second one is begun beside the
first only when as much has gathered as proposals usually carry: many small ones would only take turns on the processor.
What they usually carry is a moving average, so that the size follows the load within a few decisions, both ways.
"""

from typing import Final

from dwcp_migrate.consensus.pbft.model.messages import BATCH_REQUESTS_MAX

_WEIGHT: Final = 0.25
"""Of the newest batch in the average: the load of the last few decisions counts."""


class Batching:
    """Decides the size of the next proposal.

    Args:
        pipeline: proposals under way at once.
        size_max: requests in one proposal; 1 is no batching.
    """

    def __init__(self, pipeline: int, size_max: int) -> None:
        self.pipeline = pipeline
        self.size_max = min(size_max, BATCH_REQUESTS_MAX)
        self._usual = 1.0

    def size(self, queued: int, under_way: int) -> int:
        """Choose how many requests to propose now; 0 is none.

        Args:
            queued: requests that wait.
            under_way: proposals that are not decided yet.
        """
        if not queued or under_way >= self.pipeline:
            return 0
        if under_way and queued < min(self._usual, self.size_max):
            return 0
        return min(queued, self.size_max)

    def proposed(self, size: int) -> None:
        """Learn from a proposal that was made."""
        self._usual += (size - self._usual) * _WEIGHT
