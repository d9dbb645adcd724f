"""Memory and CPU of one migration's two data processes by grant and link rate (docs/sizing.md).

    python -m bench.sizing [--guest-mib 256] [--out bench/results/sizing.json]

A made-up guest (text, structure, noise; a third of its pages zero) is sent twice, the second time with a third of its
pages changed a little, with zstd through two real data processes over loopback; `SetRate` holds the source to a rate.
Memory is the most that a process did not share with others, less what it had idle; CPU is its own, over both passes.
"""

import argparse
import json
import os
import re
import socket
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Final

from bench.frame import commit, machine
from dwcp_migrate.protocol.session_memory import agree_on_sizes, divide_grant, need_bytes
from dwcp_migrate.protocol.worker import Finished, SetRate
from dwcp_migrate.units import GIB, MIB, format_rate
from tests.dataplane.pair import Pair, pair
from tests.dataplane.streams import PAGE, precopy

RATES_BYTES_PER_S: Final = (12.5e6, 125e6, 0.0)
"""100 Mbit/s, a Gbit/s, and as fast as this machine goes."""

GRANTS: Final = (32 * MIB, 256 * MIB, 0)
"""0 is all that the session could use."""

LOOK_S: Final = 0.1


def private_bytes(pid: int) -> int:
    """Memory that a process does not share with others; 0 of one that is gone."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return sum(int(found) * 1024 for found in re.findall(r"^Private_(?:Clean|Dirty):\s+(\d+)", text, re.MULTILINE))


def cpu_s(pid: int) -> float:
    """CPU time of a process so far: its start is no part of a migration."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def measure(stream: bytes, guest_bytes: int, grant: int, rate: float) -> dict[str, Any]:
    """Carry the stream once."""
    grant = grant or need_bytes(GIB, guest_bytes, has_table=True)
    theirs = divide_grant(grant, GIB, has_table=False)
    memory = agree_on_sizes(
        divide_grant(grant, GIB, guest_bytes, has_table=True), theirs.cache_bytes, theirs.window_bytes
    )
    with tempfile.TemporaryDirectory() as directory, pair(Path(directory), memory=memory) as made:
        sides = {"source": made.source, "destination": made.destination}
        idle = {side: private_bytes(one.process.pid) for side, one in sides.items()}
        most = dict(idle)
        started_s = {side: cpu_s(one.process.pid) for side, one in sides.items()}
        made.source.tell(SetRate(bytes_per_s=rate))
        threads = _begin(made, stream)
        began = time.monotonic()
        while any(thread.is_alive() for thread in threads):
            for side, one in sides.items():
                most[side] = max(most[side], private_bytes(one.process.pid))
            time.sleep(LOOK_S)
        elapsed_s = time.monotonic() - began
        ended = {side: one.wait(Finished).counters for side, one in sides.items()}
    return {
        "grant_mib": memory.granted_bytes // MIB,
        "link": format_rate(rate) if rate else "not held",
        "raw_bytes_per_s": round(len(stream) / elapsed_s),
        "ratio": round(len(stream) / max(1, ended["source"].wire_bytes), 2),
        "memory_mib": {side: round((most[side] - idle[side]) / MIB, 1) for side in sides},
        "cpu_s_per_gib": {
            side: round((ended[side].cpu_s - started_s[side]) / (len(stream) / GIB), 2) for side in sides
        },
    }


def _begin(made: Pair, stream: bytes) -> list[threading.Thread]:
    ours, theirs = made.connect()

    def send() -> None:
        ours.sendall(stream)
        ours.shutdown(socket.SHUT_WR)

    def receive() -> None:
        while theirs.recv(MIB):
            pass
        theirs.close()
        ours.close()

    threads = [threading.Thread(target=send), threading.Thread(target=receive)]
    for thread in threads:
        thread.start()
    return threads


def main() -> None:
    """Measure all, and write the results."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--guest-mib", type=int, default=256)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    guest_bytes = given.guest_mib * MIB
    stream = b"".join(precopy(5, guest_bytes // PAGE))
    rows = []
    for grant in GRANTS:
        for rate in RATES_BYTES_PER_S:
            rows.append(measure(stream, guest_bytes, grant, rate))
            print(json.dumps(rows[-1]), flush=True)
    if given.out:
        found = {"machine": machine(), "commit": commit(), "guest_mib": given.guest_mib, "rows": rows}
        given.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
