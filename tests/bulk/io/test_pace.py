"""The rate that all connections of a host keep together."""

import threading
import time

from dwcp_migrate.bulk.io.pace import BulkPace


def test_threads_keep_one_rate_together() -> None:
    pace = BulkPace(1_000_000)

    def send() -> None:
        for _ in range(5):
            pace.spend(50_000)

    threads = [threading.Thread(target=send) for _ in range(2)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 0.3 <= time.monotonic() - began < 5


def test_lifted_rate_lets_those_go_that_wait() -> None:
    pace = BulkPace(1)
    pace.spend(1 << 20)
    waiting = threading.Thread(target=pace.spend, args=(1,))
    waiting.start()
    pace.set_rate(0)
    waiting.join(10)
    assert not waiting.is_alive()
    assert pace.rate == 0
