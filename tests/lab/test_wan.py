"""The WAN against real TCP and UDP of the hypervisors' network namespaces."""

import json
import socket
import statistics
import time
from typing import Any

import pytest

from dwcp_migrate.errors import LabError
from dwcp_migrate.lab.lab import Lab
from dwcp_migrate.lab.wan import WanLink

pytestmark = pytest.mark.lab

ECHO = """
import socket
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("", 9000))
print("ready", flush=True)
while True:
    data, address = server.recvfrom(2000)
    if data == b"end":
        break
    server.sendto(data, address)
"""

PROBE = """
import json, socket, sys, time
count, size, patience = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
probe.settimeout(patience)
probe.connect(("hv2", 9000))
times = []
for number in range(count):
    begin = time.monotonic()
    probe.send(number.to_bytes(4, "big") + bytes(size - 4))
    try:
        while probe.recv(2000)[:4] != number.to_bytes(4, "big"):
            pass
    except TimeoutError:
        continue
    times.append(time.monotonic() - begin)
for _ in range(20):
    probe.send(b"end")
print(json.dumps(times))
"""

END = "import socket; socket.socket(2, 2).sendto(b'end', ('127.0.0.1', 9000))"

SINK = """
import socket, time
server = socket.create_server(("", 9001))
print("ready", flush=True)
connection, _ = server.accept()
begin, total = None, 0
while data := connection.recv(1 << 20):
    begin = begin or time.monotonic()
    total += len(data)
print(total / (time.monotonic() - begin), flush=True)
"""

SEND = """
import socket, sys
connection = socket.create_connection(("hv2", 9001))
for _ in range(int(sys.argv[1])):
    connection.sendall(bytes(1 << 20))
connection.close()
"""


def round_trips(lab: Lab, *, count: int, size: int = 100, patience_s: float = 1.0) -> list[float]:
    """Send datagrams from hv1 to hv2 and back, one after the other; returns the times of those that came back."""
    with lab["hv2"].popen(["python3", "-c", ECHO]) as echo:
        assert echo.stdout is not None
        assert echo.stdout.readline() == "ready\n"
        done = lab["hv1"].run(["python3", "-c", PROBE, str(count), str(size), str(patience_s)])
        times: list[float] = json.loads(done.stdout)
        lab.wan.heal()
        lab["hv2"].run(["python3", "-c", END])  # when all of the probe's were lost
    return times


def tcp_bytes_per_s(lab: Lab, *, mib: int) -> float:
    """Send from hv1 to hv2 over one TCP connection; returns the rate at which hv2 received."""
    with lab["hv2"].popen(["python3", "-c", SINK]) as sink:
        assert sink.stdout is not None
        assert sink.stdout.readline() == "ready\n"
        lab["hv1"].run(["python3", "-c", SEND, str(mib)])
        return float(sink.stdout.readline())


def test_the_round_trip_takes_twice_the_delay(lab: Lab) -> None:
    lab.wan.set(WanLink(rate_bytes_per_s=125e6, delay_s=0.025, loss=0.0))
    times = round_trips(lab, count=20)
    assert len(times) == 20
    assert min(times) >= 0.050
    assert statistics.median(times) < 0.060


def test_tcp_gets_the_rate_and_not_more(lab: Lab) -> None:
    lab.wan.set(WanLink(rate_bytes_per_s=6.25e6, delay_s=0.005, loss=0.0))
    rates = [tcp_bytes_per_s(lab, mib=8) for _ in range(3)]
    assert max(rates) > 0.80 * 6.25e6, rates  # headers take 3.5 %; a neighbour's load can only slow one of them down
    assert max(rates) < 1.02 * 6.25e6, rates


def test_loss_hits_single_packets_at_its_probability(lab: Lab) -> None:
    lab.wan.set(WanLink(rate_bytes_per_s=125e6, delay_s=0.0, loss=0.1))
    before = lab.wan.uplinks()
    times = round_trips(lab, count=600, patience_s=0.02)
    after = lab.wan.uplinks()
    sent = sum(after[host].sent_packets - before[host].sent_packets for host in after)
    lost = sum(after[host].lost_packets - before[host].lost_packets for host in after)
    assert 0.07 < lost / sent < 0.13
    assert len(times) < 600


def test_an_uplink_of_its_own_leaves_the_other_direction_alone(lab: Lab) -> None:
    lab.wan.set(WanLink(rate_bytes_per_s=125e6, delay_s=0.030, loss=0.0), "hv2")
    uplinks = lab.wan.uplinks()
    assert (uplinks["hv1"].delay_us, uplinks["hv2"].delay_us) == (1000, 30000)
    assert 0.031 <= min(round_trips(lab, count=10)) < 0.045


def test_a_full_queue_drops(lab: Lab) -> None:
    lab.wan.set(WanLink(rate_bytes_per_s=1.25e6, delay_s=0.020, loss=0.0, queue_bytes=8192))
    before = lab.wan.uplinks()["hv1"].dropped_packets
    tcp_bytes_per_s(lab, mib=1)
    assert lab.wan.uplinks()["hv1"].dropped_packets > before


def test_a_cut_link_carries_nothing_until_it_is_healed(lab: Lab) -> None:
    lab.wan.cut("hv2")
    assert round_trips(lab, count=3, patience_s=0.1) == []
    assert len(round_trips(lab, count=3)) == 3


def test_every_byte_on_the_wire_is_counted(lab: Lab) -> None:
    before = lab.wan.uplinks()
    assert len(round_trips(lab, count=100, size=1000)) == 100
    after = lab.wan.uplinks()
    sent = after["hv2"].sent_bytes - before["hv2"].sent_bytes
    assert 100 * 1028 <= sent < 100 * 1028 + 2000  # 28 bytes of IP and UDP headers; some ICMP for the late `end`s
    assert lab.wan.wire_bytes() == sum(uplink.sent_bytes for uplink in after.values())


def test_congestion_control_is_what_the_lab_says(lab: Lab) -> None:
    with lab["hv2"].popen(["python3", "-c", SINK]) as sink:
        assert sink.stdout is not None
        sink.stdout.readline()
        script = (
            "import socket; c = socket.create_connection(('hv2', 9001)); "
            "print(c.getsockopt(socket.IPPROTO_TCP, 13, 16).rstrip(b'\\0').decode())"
        )
        assert lab["hv1"].run(["python3", "-c", script]).stdout == "cubic\n"
        sink.kill()


def test_an_unknown_host_is_an_error(lab: Lab) -> None:
    changes: list[Any] = [lab.wan.cut, lab.wan.heal]
    for change in changes:
        with pytest.raises(LabError, match="no such host"):
            change("hv9")


def test_whoever_is_slow_to_speak_is_answered_all_the_same_and_so_is_the_next(lab: Lab) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as slow:
        slow.connect(str(lab.directory / "wan.sock"))
        time.sleep(0.2)  # ten times what a question takes
        slow.sendall(b"stats")
        assert slow.recv(1 << 14).startswith(b"{")
    assert set(lab.wan.uplinks()) == {"hv1", "hv2"}
