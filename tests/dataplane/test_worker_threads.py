"""The pool runs what is urgent before all else, and one task's fault ends nothing else."""

import threading

from dwcp_migrate.dataplane.worker_threads import WORKERS_MIN, WorkPool, worker_count


def test_urgent_tasks_go_before_those_that_wait() -> None:
    faults: list[BaseException] = []
    pool = WorkPool(1, "test", faults.append)
    held, done = threading.Event(), threading.Event()
    order: list[int] = []
    pool.submit(lambda: order.append(-int(not held.wait(10))))
    for number in (1, 2):
        pool.submit(lambda number=number: order.append(number))  # type: ignore[misc]
    pool.submit(lambda: order.append(0), first=True)
    pool.submit(done.set)
    held.set()
    assert done.wait(10)
    assert order == [0, 0, 1, 2]
    assert not faults


def test_a_fault_is_told_and_the_next_task_runs() -> None:
    faults: list[BaseException] = []
    done = threading.Event()
    pool = WorkPool(1, "test", faults.append)
    pool.submit(lambda: faults.append(KeyError(1 // 0)))
    pool.submit(done.set)
    assert done.wait(10)
    assert [type(fault) for fault in faults] == [ZeroDivisionError]


def test_compressors_take_a_quarter_of_the_host_and_at_least_two_cores() -> None:
    assert worker_count(0, 64, 64) == 16
    assert worker_count(0, 4, 64) == 4
    assert worker_count(0, 4, 4) == WORKERS_MIN
    assert worker_count(0, 1, 1) == 1
    assert worker_count(7, 4, 4) == 7
