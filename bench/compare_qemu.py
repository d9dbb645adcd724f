"""The encoder and decoder against QEMU's own multifd zstd, level 1, on the same memory in the same run.

    python -m bench.compare_qemu --recording live.main --memory 1280 --machine q35 [--qemu "chroot TREE qemu-..."]

A recorded precopy stream of a guest with real programs is loaded into a paused QEMU. Then, `--runs` times by turns:
    QEMU   multifd, two channels, zstd level 1, over a unix socket, into a second QEMU
    ours   `dwcp-migrate replay` of a plain precopy recording of that same paused guest
and once: the pages that the live recording sent again, through a model of QEMU's zstd channels (checked against QEMU's
own byte count on the first pass) and through ours. See README.md, "Encoder against QEMU".
"""

import argparse
import json
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import zstandard

from bench.frame import commit, machine
from dwcp_migrate.delta.skeleton import windows
from dwcp_migrate.delta.table import NEVER, UNCACHED, PageTable
from dwcp_migrate.qemu import RamBlocks, StreamParser

PACKET_PAGES = 128
SEGMENT_BYTES = 2 << 20
WAIT_S_MAX = 600.0
TICKS_PER_S = 100


class Qemu:
    """A paused QEMU with QMP on its standard input and output."""

    def __init__(self, command: list[str], *arguments: str) -> None:
        self.process = subprocess.Popen(
            [*command, *arguments, "-qmp", "stdio"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self._line()
        self.run("qmp_capabilities")

    def _line(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def run(self, command: str, **arguments: Any) -> Any:
        """Run a QMP command; its result."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        while True:
            answer = self._line()
            if "error" in answer:
                raise SystemExit(f"{command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]

    def wait(self) -> dict[str, Any]:
        """Wait until the migration is complete; its statistics."""
        until = time.monotonic() + WAIT_S_MAX
        while time.monotonic() < until:
            status: dict[str, Any] = self.run("query-migrate")
            if status.get("status") == "completed":
                return status
            if status.get("status") == "failed":
                raise SystemExit(f"QEMU's migration failed: {status}")
            time.sleep(0.2)
        raise SystemExit("QEMU's migration does not end")

    def cpu_s(self) -> float:
        """User and system time of all threads so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_S

    def stop(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()


def use_multifd(side: Qemu) -> None:
    """Two channels, zstd level 1, no other limit."""
    side.run("migrate-set-capabilities", capabilities=[{"capability": "multifd", "state": True}])
    parameters = {"multifd-channels": 2, "multifd-compression": "zstd", "multifd-zstd-level": 1}
    side.run("migrate-set-parameters", **parameters, **{"max-bandwidth": 1 << 40})


def loaded(command: list[str], recording: Path) -> Qemu:
    """A paused guest from a recording. It can be migrated once: QEMU refuses a second time."""
    source = Qemu(command, "-mem-prealloc", "-incoming", "defer")
    source.run("migrate-incoming", uri=f"exec:cat {recording}")
    source.wait()
    return source


def qemu_run(command: list[str], recording: Path, folder: Path) -> dict[str, float]:
    """Migrate the paused guest once; CPU of both sides and bytes."""
    source = loaded(command, recording)
    destination = Qemu(command, "-mem-prealloc", "-incoming", "defer")
    try:
        use_multifd(source)
        use_multifd(destination)
        destination.run("migrate-incoming", uri=f"unix:{folder}/socket")
        before = source.cpu_s(), destination.cpu_s()
        source.run("migrate", uri=f"unix:{folder}/socket")
        status = source.wait()
        after = source.cpu_s(), destination.cpu_s()
        return {
            "send_cpu_s": after[0] - before[0],
            "receive_cpu_s": after[1] - before[1],
            "bytes": status["ram"]["transferred"],
        }
    finally:
        source.stop()
        destination.stop()
        (folder / "socket").unlink(missing_ok=True)


def our_run(recording: Path, cache_mb: int) -> dict[str, Any]:
    """Replay in a process of its own."""
    program = Path(sys.executable).parent / "dwcp-migrate"
    command = [str(program), "replay", str(recording), "--json", "--prefault", "--cache-mb", str(cache_mb)]
    result: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["total"]
    if not result["identical"]:
        raise SystemExit("the rebuilt stream differs")
    return result


def pages_of(recording: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pages of a precopy recording in stream order, and which of them had been sent before (zero pages count)."""
    parser, table, rest = StreamParser(RamBlocks()), PageTable(), b""
    with recording.open("rb") as file:
        while data := rest + file.read(SEGMENT_BYTES):
            fed = parser.feed(data, flush=len(data) == len(rest))
            for cut in fed.cuts:
                if cut.layout is None:
                    continue
                segment = np.frombuffer(data, np.uint8)[cut.begin : cut.end]
                again = table.get(cut.layout.page_key) != NEVER
                table.put(cut.layout.page_key, UNCACHED)
                table.mark_sent(cut.layout.zero_key)
                if len(again):
                    yield windows(segment, 4096)[cut.layout.page_position], again
            rest = data[fed.consumed :]


def modelled_bytes(recording: Path, *, resent: bool) -> tuple[int, int]:
    """Raw and wire bytes of first or resent pages as QEMU's zstd channels send them: streams, a flush a packet."""
    streams = [zstandard.ZstdCompressor(level=1, write_checksum=False).compressobj() for _ in range(2)]
    raw = wire = packets = 0
    waiting: list[np.ndarray] = []
    for pages, again in pages_of(recording):
        waiting += list(pages[again if resent else ~again])
        while len(waiting) >= PACKET_PAGES:
            stream = streams[packets % 2]
            wire += sum(len(stream.compress(page.tobytes())) for page in waiting[:PACKET_PAGES])
            wire += len(stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)) + 1344
            raw += PACKET_PAGES * 4096
            packets += 1
            del waiting[:PACKET_PAGES]
    return raw, wire


def measure(options: argparse.Namespace, command: list[str], folder: Path) -> dict[str, Any]:
    """All figures."""
    source = loaded(command, options.recording)
    try:
        first = folder / "first.main"
        source.run("migrate-set-parameters", **{"max-bandwidth": 1 << 40})
        source.run("migrate", uri=f"exec:cat > {first}")
        source.wait()
    finally:
        source.stop()
    our_run(first, options.cache_mb)  # warms the page cache of the file and of the program
    qemu, ours = [], []
    for _ in range(options.runs):
        qemu.append(qemu_run(command, first, folder))
        ours.append(our_run(first, options.cache_mb))
        print(qemu[-1], ours[-1]["cpu_s"], file=sys.stderr)
    return compare(options, first, qemu, ours)


def compare(
    options: argparse.Namespace, first: Path, qemu: list[dict[str, float]], ours: list[dict[str, Any]]
) -> dict[str, Any]:
    """The figures that matter, with the samples behind them."""
    raw = ours[0]["raw_bytes"]

    def per_gb(values: list[float]) -> float:
        return float(statistics.median(values) / raw * 1e9)

    send, receive = (per_gb([run[key] for run in qemu]) for key in ("send_cpu_s", "receive_cpu_s"))
    encode, decode = (statistics.median(run[f"{key}_cpu_s_per_gb"] for run in ours) for key in ("encode", "decode"))
    model = modelled_bytes(first, resent=False)
    again = modelled_bytes(options.recording, resent=True)
    live = our_run(options.recording, options.cache_mb)
    share = live["resent"]["wire_bytes"] / live["resent"]["raw_bytes"]
    return {
        "machine": machine(),
        "commit": commit(),
        "command": shlex.join(sys.argv),
        "first_pass": {
            "raw_bytes": raw,
            "qemu_bytes": qemu[0]["bytes"],
            "our_bytes": ours[0]["wire_bytes"],
            "bytes_ratio": ours[0]["wire_bytes"] / qemu[0]["bytes"],
            "model_error": model[1] / qemu[0]["bytes"] - 1,
        },
        "resent": {
            "raw_bytes": again[0],
            "qemu_model_ratio": again[1] / again[0],
            "our_ratio": share,
            "bytes_ratio": share / (again[1] / again[0]),
            "our_raw_bytes": live["resent"]["raw_bytes"],
        },
        "cpu_s_per_gb": {
            "qemu_send": send,
            "qemu_receive": receive,
            "encode": encode,
            "decode": decode,
            "encode_ratio": encode / send,
            "decode_ratio": decode / receive,
            "encode_ratio_by_run": [
                o["encode_cpu_s_per_gb"] * raw / 1e9 / q["send_cpu_s"] for o, q in zip(ours, qemu, strict=True)
            ],
            "decode_ratio_by_run": [
                o["decode_cpu_s_per_gb"] * raw / 1e9 / q["receive_cpu_s"] for o, q in zip(ours, qemu, strict=True)
            ],
        },
        "runs": {"qemu": qemu, "ours": ours},
    }


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recording", type=Path, required=True, help="a live precopy recording")
    parser.add_argument("--memory", required=True, help="the guest's memory, MiB")
    parser.add_argument("--machine", default="q35", help="its machine type")
    parser.add_argument("--devices", default="", help="more arguments that the recording's QEMU had")
    parser.add_argument("--qemu", default="qemu-system-x86_64", help="how to run QEMU; it must see --folder's path")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--cache-mb", type=int, default=1024)
    parser.add_argument("--folder", type=Path, default=None, help="for temporary files")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "hde-against-qemu.json")
    options = parser.parse_args()
    command = [*shlex.split(options.qemu), "-accel", "tcg", "-M", options.machine, "-m", options.memory, "-S"]
    command += ["-display", "none", "-nodefaults", "-vga", "none", *shlex.split(options.devices)]
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        result = measure(options, command, Path(name))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps({key: result[key] for key in ("first_pass", "resent", "cpu_s_per_gb")}, indent=2))


if __name__ == "__main__":
    main()
