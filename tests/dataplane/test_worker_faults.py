"""A data process whose thread fails ends as a whole; one that is asked for its stacks goes on.

The agent notices the end, and no connection stays open half served.
"""

import select
import signal
import socket
import subprocess
import sys

from dwcp_migrate.protocol.worker import MESSAGE_BYTES_MAX, WorkerReady, decode_from_worker

PROGRAM = """
import threading
from dwcp_migrate.dataplane import worker
worker._settle()
threading.Thread(target=lambda: 1 // 0, daemon=True).start()
threading.Event().wait(60)
"""


def test_a_fault_in_any_thread_ends_the_process_and_says_why() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr


def test_a_signal_makes_it_write_the_stacks_of_its_threads_and_nothing_else() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, "-m", "dwcp_migrate.dataplane.worker", str(theirs.fileno())]
    with subprocess.Popen(command, stderr=subprocess.PIPE, pass_fds=[theirs.fileno()], text=True) as process:
        theirs.close()
        assert isinstance(decode_from_worker(ours.recv(MESSAGE_BYTES_MAX)), WorkerReady)
        process.send_signal(signal.SIGUSR1)
        assert process.stderr is not None
        assert select.select([process.stderr], [], [], 30)[0]
        assert "most recent call first" in process.stderr.readline()
        assert process.poll() is None
        ours.close()
        assert "worker.py" in process.stderr.read()
    assert process.returncode == 0
