"""A libvirtd of as many domains as a test wants, which speaks libvirt's own remote protocol on a Unix socket.

The client is the real libvirt library. As libvirtd does, it serves five requests of a connection at once, and a
request that needs the job of a domain whose job lock hangs is answered with a time-out error after `job_wait_s`.
"""

import socket
import struct
import threading
import uuid as uuids
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import libvirt

if TYPE_CHECKING:
    from collections.abc import Callable

REMOTE: Final = 0x20008086
KEEPALIVE: Final = 0x6B656570
CALL, REPLY, MESSAGE = 0, 1, 2
REQUESTS_MAX: Final = 5
UNLIMITED_MIB: Final = 8796093022207
SET_SPEED, GET_SPEED = 207, 242

OPEN, CLOSE, MEMORY, LOOKUP, FEATURE, AUTH, LIB_VERSION = 1, 2, 17, 24, 60, 66, 157
STATE, LIST, JOB_STATS, STATS, REGISTER, DEREGISTER = 212, 273, 298, 344, 316, 317
LIFECYCLE, ITERATION, CLOSE_CALLBACK, NO_CLOSE_CALLBACK, JOB_COMPLETED = 318, 359, 360, 361, 363
EVENT_OF_ID: Final = {
    libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE: LIFECYCLE,
    libvirt.VIR_DOMAIN_EVENT_ID_MIGRATION_ITERATION: ITERATION,
    libvirt.VIR_DOMAIN_EVENT_ID_JOB_COMPLETED: JOB_COMPLETED,
}


class RefusalError(Exception):
    """An error of libvirt's by its code."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def text(value: str) -> bytes:
    data = value.encode()
    return struct.pack(">I", len(data)) + data + bytes(-len(data) % 4)


def parameters(values: dict[str, int]) -> bytes:
    """Typed parameters, all unsigned of 64 bits but those that libvirt has as int."""
    found = struct.pack(">I", len(values))
    for name, value in values.items():
        is_int = name in {"operation", "state.state", "state.reason"}
        kind = libvirt.VIR_TYPED_PARAM_INT if is_int else libvirt.VIR_TYPED_PARAM_ULLONG
        found += text(name) + struct.pack(">I" + ("i" if is_int else "Q"), kind, value)
    return found


@dataclass
class StubDomain:
    """A domain; `job` is what virDomainGetJobStats answers, an error's code where it refuses."""

    name: str
    uuid: str = field(default_factory=lambda: str(uuids.uuid4()))
    state: tuple[int, int] = (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_BOOTED)
    memory_kib: int = 1 << 20
    speed_mib: int = UNLIMITED_MIB
    job: dict[str, int] | int = field(default_factory=dict)
    is_hung: bool = False

    def encoded(self) -> bytes:
        return text(self.name) + uuids.UUID(self.uuid).bytes + struct.pack(">i", 1)


class StubLibvirtd:
    """The daemon.

    Args:
        path: of its socket.
        domains: what runs on it.
        job_wait_s: libvirt's VIR_JOB_WAIT_TIME is 30.
    """

    def __init__(self, path: Path, domains: list[StubDomain], job_wait_s: float = 30.0) -> None:
        self.uri = f"qemu+unix:///system?socket={path}"
        self.domains = {domain.uuid: domain for domain in domains}
        self.asked: list[tuple[int, str]] = []
        self._job_wait_s = job_wait_s
        self._ended = threading.Event()
        self._subscribers: dict[tuple[_Client, int], int] = {}
        self._clients: list[_Client] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(str(path))
        self._socket.listen(16)
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._ended.set()
        self._socket.close()
        for client in self._clients:
            client.close()

    def lifecycle(self, domain: StubDomain, event: int, detail: int) -> None:
        self._tell(LIFECYCLE, domain.encoded() + struct.pack(">ii", event, detail))

    def iteration(self, domain: StubDomain, number: int) -> None:
        self._tell(ITERATION, domain.encoded() + struct.pack(">i", number))

    def job_completed(self, domain: StubDomain, values: dict[str, int]) -> None:
        self._tell(JOB_COMPLETED, domain.encoded() + parameters(values))

    def _tell(self, procedure: int, body: bytes) -> None:
        for (client, number), event in list(self._subscribers.items()):
            if EVENT_OF_ID[event] == procedure:
                client.send(REMOTE, procedure, MESSAGE, 0, 0, struct.pack(">i", number) + body)

    def _accept(self) -> None:
        while not self._ended.is_set():
            try:
                sock, _ = self._socket.accept()
            except OSError:
                return
            self._clients.append(_Client(self, sock))

    def answer(self, client: "_Client", procedure: int, body: bytes) -> bytes:
        """Answer a call; raises RefusalError."""
        plain: dict[int, Callable[[], bytes]] = {
            OPEN: lambda: b"",
            CLOSE: lambda: b"",
            AUTH: lambda: struct.pack(">II", 1, 0),
            FEATURE: lambda: struct.pack(">i", 1),
            LIB_VERSION: lambda: struct.pack(">Q", 11_003_000),
            CLOSE_CALLBACK: lambda: b"",
            NO_CLOSE_CALLBACK: lambda: b"",
            DEREGISTER: lambda: b"",
            LIST: self._list,
            STATS: self._stats,
            REGISTER: lambda: self._register(client, body),
        }
        if procedure in plain:
            return plain[procedure]()
        return self._of_domain(procedure, body)

    def _register(self, client: "_Client", body: bytes) -> bytes:
        (event,) = struct.unpack_from(">i", body)
        number = len(self._subscribers) + 1
        self._subscribers[client, number] = event
        return struct.pack(">i", number)

    def _list(self) -> bytes:
        count = struct.pack(">I", len(self.domains))
        return count + b"".join(domain.encoded() for domain in self.domains.values()) + count

    def _stats(self) -> bytes:
        found = struct.pack(">I", len(self.domains))
        for domain in self.domains.values():
            found += domain.encoded()
            found += parameters({"state.state": domain.state[0], "state.reason": domain.state[1]})
        return found

    def _of_domain(self, procedure: int, body: bytes) -> bytes:
        if procedure == LOOKUP:
            domain = self._found(body)
            return domain.encoded()
        length = struct.unpack_from(">I", body)[0]
        domain = self._found(body[4 + length + (-length % 4) :])
        self.asked.append((procedure, domain.name))
        if procedure == STATE:
            return struct.pack(">ii", *domain.state)
        if procedure == MEMORY:
            return struct.pack(">Q", domain.memory_kib)
        if procedure == GET_SPEED:
            return struct.pack(">Q", domain.speed_mib)
        if procedure == SET_SPEED:
            domain.speed_mib = struct.unpack(">Q", body[-12:-4])[0]
            return b""
        if procedure == JOB_STATS:
            return self._job_stats(domain)
        raise RefusalError(libvirt.VIR_ERR_NO_SUPPORT, f"procedure {procedure} is not of this stub")

    def _found(self, body: bytes) -> StubDomain:
        found = self.domains.get(str(uuids.UUID(bytes=body[:16])))
        if found is None:
            raise RefusalError(libvirt.VIR_ERR_NO_DOMAIN, "no domain with matching uuid")
        return found

    def _job_stats(self, domain: StubDomain) -> bytes:
        if isinstance(domain.job, int):
            raise RefusalError(domain.job, "migration statistics are available only on the source host")
        if domain.is_hung:
            self._ended.wait(self._job_wait_s)
            raise RefusalError(libvirt.VIR_ERR_OPERATION_TIMEOUT, "cannot acquire state change lock")
        kind = libvirt.VIR_DOMAIN_JOB_UNBOUNDED if domain.job else libvirt.VIR_DOMAIN_JOB_NONE
        return struct.pack(">i", kind) + parameters(domain.job)


class _Client:
    """A connection of the library's."""

    def __init__(self, daemon: StubLibvirtd, sock: socket.socket) -> None:
        self._daemon = daemon
        self._socket = sock
        self._sending = threading.Lock()
        self._serving = threading.Semaphore(REQUESTS_MAX)
        threading.Thread(target=self._read, daemon=True).start()

    def close(self) -> None:
        self._socket.close()

    def send(self, program: int, procedure: int, kind: int, serial: int, status: int, body: bytes) -> None:
        message = struct.pack(">IIIIII", program, 1, procedure, kind, serial, status) + body
        with self._sending:
            try:
                self._socket.sendall(struct.pack(">I", len(message) + 4) + message)
            except OSError:
                return

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = self._socket.recv(count - len(data))
            if not more:
                raise OSError("closed")
            data += more
        return data

    def _read(self) -> None:
        try:
            while True:
                (length,) = struct.unpack(">I", self._exactly(4))
                message = self._exactly(length - 4)
                program, _, procedure, _, serial, _ = struct.unpack_from(">IIIIII", message)
                if program == KEEPALIVE:
                    self.send(KEEPALIVE, 2, MESSAGE, 0, 0, b"")
                    continue
                self._serving.acquire()
                threading.Thread(target=self._serve, args=(procedure, serial, message[24:]), daemon=True).start()
        except OSError:
            return

    def _serve(self, procedure: int, serial: int, body: bytes) -> None:
        try:
            answer = self._daemon.answer(self, procedure, body)
        except RefusalError as refusal:
            said = struct.pack(">iiI", refusal.code, libvirt.VIR_FROM_QEMU, 1) + text(str(refusal))
            said += struct.pack(">iIIIIiiI", libvirt.VIR_ERR_ERROR, 0, 0, 0, 0, 0, 0, 0)
            self.send(REMOTE, procedure, REPLY, serial, 1, said)
        else:
            self.send(REMOTE, procedure, REPLY, serial, 0, answer)
        finally:
            self._serving.release()
