#!/usr/bin/env python3
"""Record the vectors of this folder from a real QEMU. Standard library and the zstd program only.

    record.py --tag 7.2 qemu-system-x86_64
    record.py --tag 10.0 chroot /a/debian13/tree qemu-system-x86_64     (with the host's /tmp bound to its /tmp)

A guest of 24 MiB boots a 512-byte program that fills 256 KiB with numbers (every 128 KiB of them twice) and then
keeps changing 512 KiB, 16 words a page. It is migrated to a second QEMU through a recorder that keeps what each
connection carries, forward and backward. One folder a case: `main.zst`, `multifd-0.zst`.., `return.zst`.
"""

import argparse
import json
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAM = bytes.fromhex(
    "fa31c0be3412bb00108ec331ffb9000869f6556281c6193689f0abe2f381c3000181fb005072e2"
    "31d242bb00108ec331ffb9100026891581c79700e2f781c3000181fb009072e6ebe0"
)
"""16-bit code: for (es = 1000..5000) store si = si * 25173 + 13849 2048 times; then for ever: dx += 1, and for
(es = 1000..9000) store dx 16 times, 97h bytes apart."""

ITERATE_S = 3.0
WAIT_S_MAX = 60.0

CASES: dict[str, dict[str, Any]] = {
    "7.2/precopy": {},
    "7.2/multifd": {"channels": 2},
    "10.0/xbzrle": {"capabilities": ["xbzrle"]},
    "7.2/postcopy": {"capabilities": ["postcopy-ram"], "postcopy": True, "iterate_s": 0.3},
    "10.0/precopy": {},
    "10.0/multifd": {"channels": 2},
    "10.0/multifd-type-7.2": {"channels": 2, "machine": "pc-q35-7.2"},
    "10.0/multifd-zstd": {"channels": 2, "parameters": {"multifd-compression": "zstd"}},
    "10.0/postcopy": {"capabilities": ["postcopy-ram"], "postcopy": True, "iterate_s": 0.3},
}


class Qemu:
    """A QEMU with QMP on its standard input and output."""

    def __init__(self, arguments: list[str]) -> None:
        self.process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        self._lines().readline()
        self.run("qmp_capabilities")

    def _lines(self) -> Any:
        assert self.process.stdout is not None
        return self.process.stdout

    def run(self, command: str, **arguments: Any) -> Any:
        """Run a QMP command; its result."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        while True:
            answer = json.loads(self._lines().readline())
            if "error" in answer:
                raise SystemExit(f"{command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]

    def wait(self, *wanted: str) -> str:
        """Wait until the migration has one of these states."""
        until = time.monotonic() + WAIT_S_MAX
        while time.monotonic() < until:
            state: str = self.run("query-migrate").get("status", "")
            if state in wanted:
                return state
            time.sleep(0.02)
        raise SystemExit(f"the migration is {state}, not {wanted}")

    def stop(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()


class Recorder:
    """Passes connections on to `target` and keeps what they carry."""

    def __init__(self, listen: Path, target: Path) -> None:
        self.forward: list[bytearray] = []
        self.backward: list[bytearray] = []
        self._target = target
        self._threads: list[threading.Thread] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(listen))
        listen.chmod(0o777)
        self._listener.listen(16)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            near, _ = self._listener.accept()
            far = socket.socket(socket.AF_UNIX)
            far.connect(str(self._target))
            self.forward.append(bytearray())
            self.backward.append(bytearray())
            for source, target, kept in ((near, far, self.forward[-1]), (far, near, self.backward[-1])):
                thread = threading.Thread(target=_carry, args=(source, target, kept), daemon=True)
                thread.start()
                self._threads.append(thread)

    def finish(self) -> None:
        """Wait until all connections ended."""
        for thread in self._threads:
            thread.join(WAIT_S_MAX)


def _carry(source: socket.socket, target: socket.socket, kept: bytearray) -> None:
    try:
        while data := source.recv(1 << 20):
            kept += data
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        target.close()


@contextmanager
def pair(command: list[str], folder: Path, case: dict[str, Any]) -> Iterator[tuple[Qemu, Qemu, Recorder]]:
    """A running guest, a QEMU that waits for it, and the recorder between them."""
    disk = folder / "disk.img"
    disk.write_bytes(PROGRAM.ljust(510, b"\0") + b"\x55\xaa" + bytes(512 * 1024))
    drive = [
        "-drive",
        f"file={disk},format=raw,if=none,id=d,snapshot=on,file.locking=off",
        "-device",
        "ide-hd,drive=d,bootindex=0",
    ]
    arguments = [*command, "-accel", "tcg", "-M", case.get("machine", "q35"), "-m", "24", "-nodefaults", "-vga", "none"]
    arguments += ["-display", "none", "-uuid", "5ca1ab1e-0000-4000-8000-000000000001", "-qmp", "stdio", *drive]
    destination = Qemu([*arguments, "-incoming", "defer"])
    source = Qemu(arguments)
    try:
        for side in (source, destination):
            names = [*case.get("capabilities", []), *(["multifd"] if "channels" in case else [])]
            states = [{"capability": name, "state": True} for name in names]
            side.run("migrate-set-capabilities", capabilities=states)
            parameters = dict(case.get("parameters", {}))
            if "channels" in case:
                parameters["multifd-channels"] = case["channels"]
            side.run("migrate-set-parameters", **parameters)
        destination.run("migrate-incoming", uri=f"unix:{folder}/far")
        (folder / "far").chmod(0o777)
        yield source, destination, Recorder(folder / "near", folder / "far")
    finally:
        source.stop()
        destination.stop()


def record(command: list[str], case: dict[str, Any]) -> Recorder:
    """Migrate once and return what was carried."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        with pair(command, folder, case) as (source, _, recorder):
            time.sleep(2)  # the guest is a real-time program without a console: nothing to wait for
            source.run("migrate-set-parameters", **{"max-bandwidth": 2 << 20, "max-postcopy-bandwidth": 1 << 20})
            source.run("migrate-set-parameters", **{"downtime-limit": 1})
            source.run("migrate", uri=f"unix:{folder}/near")
            time.sleep(case.get("iterate_s", ITERATE_S))
            if case.get("postcopy"):
                source.run("migrate-start-postcopy")
            else:
                source.run("migrate-set-parameters", **{"max-bandwidth": 1 << 30, "downtime-limit": 2000})
            source.wait("completed")
            recorder.finish()
            return recorder


def write(folder: Path, recorder: Recorder) -> None:
    """Write the connections of a case, compressed."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    names = ["main", *(f"multifd-{number}" for number in range(len(recorder.forward) - 1))]
    contents = {name: bytes(data) for name, data in zip(names, recorder.forward, strict=True)}
    contents["return"] = bytes(recorder.backward[0])
    for name, data in contents.items():
        packed = subprocess.run(["zstd", "-19", "--long=27", "-c"], input=data, capture_output=True, check=True).stdout
        (folder / f"{name}.zst").write_bytes(packed)
        print(f"{folder.name}/{name}: {len(data)} bytes, {len(packed)} packed")  # noqa: T201 - a script


def main() -> None:
    """Record all cases of a tag."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tag", required=True, choices=sorted({name.partition("/")[0] for name in CASES}))
    parser.add_argument("--only", default="", help="one case")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="how to run QEMU")
    options = parser.parse_args()
    for name, case in CASES.items():
        if name.startswith(options.tag + "/") and options.only in name:
            write(Path(__file__).parent / f"qemu-{name.replace('/', '-')}", record(options.command, case))


if __name__ == "__main__":
    main()
