"""A data process whose thread fails ends as a whole: the agent notices, and no connection stays open half served."""

import subprocess
import sys

PROGRAM = """
import threading
from dwcp_migrate.session import worker
worker._settle()
threading.Thread(target=lambda: 1 // 0, daemon=True).start()
threading.Event().wait(60)
"""


def test_a_fault_in_any_thread_ends_the_process_and_says_why() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr
