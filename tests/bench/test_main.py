"""`python -m bench` prints one JSON object, whatever libraries print."""

import json
import subprocess
import sys
from typing import Final

PROGRAM: Final = """
import ctypes, sys
from bench import __main__ as bench, frame

def run(suite, options, command):
    sys.stdout.write("from Python\\n")
    ctypes.CDLL(None).puts(b"from C")
    return frame.Report(machine="m", commit="c", command=command, rows=[])

frame.run = run
bench.command.main(["itp", "--json"])
"""


def test_what_a_library_prints_is_no_part_of_the_result() -> None:
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert json.loads(ended.stdout)["command"] == "python -m bench itp --json"
    assert {"from Python", "from C"} <= set(ended.stderr.splitlines())
