"""Objects fetched over real TLS on loopback: from one to six hosts, again, changed, interrupted, and from bad peers."""

import ssl
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from dwcp_migrate.bulk.core.chunking import MEAN_BYTES_MIN
from dwcp_migrate.bulk.core.manifest import ObjectManifest, encode_manifest
from dwcp_migrate.bulk.core.messages import OK, RUN_BYTES_MAX, GetChunks, encode_answer_head, request_frames
from dwcp_migrate.bulk.core.schedule import SOURCES_MAX, STALL_S
from dwcp_migrate.bulk.io.connection import BulkConnection, BulkPeer
from dwcp_migrate.bulk.io.fetch import FetchReport
from dwcp_migrate.bulk.io.held import HeldObject
from dwcp_migrate.bulk.io.local import list_path, part_path
from dwcp_migrate.bulk.io.server import START_S_MAX
from dwcp_migrate.errors import LocalProtocolError, NotFoundError, PeerUnreachableError, StoreError
from tests.bulk.io.hosts import NAME, SILENT_S, Fleet, Host, content, peer_that

MakeHost = Callable[[str], Host]
SIZE = 3_000_000


def fetch_all(origin: Host, takers: list[Host], manifest: ObjectManifest) -> list[FetchReport]:
    def fetch(taker: Host) -> FetchReport:
        others = [one.as_peer(has_all=False) for one in takers if one is not taker]
        return taker.fetch(manifest, [origin.as_peer(has_all=True), *others])

    with ThreadPoolExecutor(len(takers)) as threads:
        return list(threads.map(fetch, takers))


@pytest.mark.parametrize("count", [1, 2, 4, 6])
def test_object_reaches_all_hosts_and_leaves_the_origin_about_once(host: MakeHost, count: int) -> None:
    origin, takers = host("origin"), [host(f"h{number}") for number in range(1, count + 1)]
    data = content(SIZE)
    manifest = origin.publish(data)
    reports = fetch_all(origin, takers, manifest)
    assert [taker.path.read_bytes() == data for taker in takers] == [True] * count
    assert all(report.faults == {} for report in reports)
    assert origin.server.sent <= 1.5 * SIZE + count * manifest.list_bytes
    assert not part_path(takers[0].path).exists()


@pytest.mark.parametrize("size", [0, 1, MEAN_BYTES_MIN // 2, 70_000])
def test_small_objects_arrive_too(host: MakeHost, size: int) -> None:
    origin, taker = host("origin"), host("h1")
    taker.fetch(origin.publish(content(size)), [origin.as_peer(has_all=True)])
    assert taker.path.read_bytes() == content(size)


def test_unchanged_object_costs_no_bytes_even_when_nobody_can_be_asked(host: MakeHost) -> None:
    origin, taker = host("origin"), host("h1")
    manifest = origin.publish(content(SIZE))
    taker.fetch(manifest, [origin.as_peer(has_all=True)])
    report = taker.fetch(manifest, [BulkPeer("h2", "127.0.0.1", 1, has_all=True)])
    assert (sum(report.received.values()), report.reused) == (0, SIZE)
    assert len(encode_manifest(manifest)) < SIZE // 100


@pytest.mark.parametrize("size", [1_000_000, 10_000_000])
@pytest.mark.parametrize("way", ["replaced", "inserted"])
def test_one_percent_changed_in_one_place_costs_less_than_three(host: MakeHost, size: int, way: str) -> None:
    origin, taker = host("origin"), host("h1")
    data = content(size)
    before = origin.publish(data)
    taker.fetch(before, [origin.as_peer(has_all=True)])
    at, change = size // 3, content(size // 100, seed=2)
    changed = data[:at] + change + data[at + (len(change) if way == "replaced" else 0) :]
    manifest = origin.publish(changed, before.mean_bytes)
    report = taker.fetch(manifest, [origin.as_peer(has_all=True)])
    assert taker.path.read_bytes() == changed
    assert sum(report.received.values()) + len(encode_manifest(manifest)) < 0.03 * size


def test_fetch_that_ended_in_the_middle_goes_on_where_it_was(host: MakeHost) -> None:
    origin, taker = host("origin"), host("h1")
    data = content(SIZE)
    manifest = origin.publish(data)
    origin.pace.set_rate(SIZE)
    with pytest.raises(PeerUnreachableError, match="out of time"):
        taker.fetch(manifest, [origin.as_peer(has_all=True)], timeout_s=0.5)
    assert not taker.path.exists()
    origin.pace.set_rate(0)
    report = taker.fetch(manifest, [origin.as_peer(has_all=True)])
    assert taker.path.read_bytes() == data
    assert report.reused > 0
    assert sum(report.received.values()) < SIZE - report.reused + 2 * manifest.list_bytes


def test_damaged_part_is_fetched_again_where_it_is_wrong(host: MakeHost) -> None:
    origin, taker = host("origin"), host("h1")
    data = content(SIZE)
    manifest = origin.publish(data)
    part_path(taker.path).write_bytes(data[:1000] + b"?" + data[1001:])
    report = taker.fetch(manifest, [origin.as_peer(has_all=True)])
    assert taker.path.read_bytes() == data
    assert SIZE - 100_000 < report.reused < SIZE


def test_earlier_version_that_was_damaged_is_not_taken_for_what_its_list_says(host: MakeHost) -> None:
    origin, taker = host("origin"), host("h1")
    data = content(SIZE)
    before = origin.publish(data)
    taker.fetch(before, [origin.as_peer(has_all=True)])
    noted = list_path(taker.path).read_bytes()
    taker.path.write_bytes(bytes(SIZE))
    list_path(taker.path).write_bytes(noted)
    changed = data + b"more"
    taker.fetch(origin.publish(changed, before.mean_bytes), [origin.as_peer(has_all=True)])
    assert taker.path.read_bytes() == changed


def test_earlier_version_without_its_list_is_cut_anew_and_used(host: MakeHost) -> None:
    origin, taker = host("origin"), host("h1")
    data = content(SIZE)
    before = origin.publish(data)
    taker.path.write_bytes(data)
    report = taker.fetch(origin.publish(data + b"more", before.mean_bytes), [origin.as_peer(has_all=True)])
    assert report.reused > 0.95 * SIZE


def answer_with(held: HeldObject, spoil: Callable[[bytes], bytes]) -> Callable[[ssl.SSLSocket], None]:
    """A peer that answers questions for chunks with something else."""

    def act(sock: ssl.SSLSocket) -> None:
        frames = request_frames()
        while data := sock.recv(4096):
            for request in frames.feed(data):
                if isinstance(request, GetChunks):
                    answer = spoil(bytes(held.read(request.first, request.count, bytearray(RUN_BYTES_MAX))))
                else:
                    answer = held.packed_list
                try:
                    sock.sendall(encode_answer_head(OK, len(answer)) + answer)
                except OSError:
                    return

    return act


SPOILS: dict[str, Callable[[bytes], bytes]] = {
    "wrong": lambda data: data[:-1] + bytes([data[-1] ^ 1]),
    "short": lambda data: data[:-1],
    "long": lambda data: data + b"!",
}


@pytest.mark.parametrize("way", SPOILS)
def test_liar_is_dropped_and_its_chunks_come_from_elsewhere(fleet: Fleet, host: MakeHost, way: str) -> None:
    origin, taker = host("origin"), host("h1")
    data = content(SIZE)
    manifest = origin.publish(data)
    held = origin.objects.find(manifest.list_digest)
    assert held is not None
    with peer_that(fleet, "g2", answer_with(held, SPOILS[way])) as liar:
        report = taker.fetch(manifest, [origin.as_peer(has_all=True), liar])
    assert taker.path.read_bytes() == data
    assert set(report.faults) == {"g2"}


def test_liar_alone_ends_the_fetch_and_leaves_no_object(fleet: Fleet, host: MakeHost) -> None:
    origin, taker = host("origin"), host("h1")
    manifest = origin.publish(content(SIZE))
    held = origin.objects.find(manifest.list_digest)
    assert held is not None
    with (
        peer_that(fleet, "g2", answer_with(held, SPOILS["wrong"])) as liar,
        pytest.raises(PeerUnreachableError, match="not what its name says"),
    ):
        taker.fetch(manifest, [liar])
    assert not taker.path.exists()


def test_peer_that_breaks_off_within_an_answer_is_dropped(fleet: Fleet, host: MakeHost) -> None:
    def act(sock: ssl.SSLSocket) -> None:
        sock.recv(4096)
        sock.sendall(encode_answer_head(OK, 60_000) + bytes(30_000))

    origin, taker = host("origin"), host("h1")
    manifest = origin.publish(content(SIZE))
    with peer_that(fleet, "g2", act) as broken:
        report = taker.fetch(manifest, [origin.as_peer(has_all=True), broken])
    assert taker.path.read_bytes() == content(SIZE)
    assert set(report.faults) == {"g2"}


def test_peer_that_stops_answering_costs_its_time_and_no_more(fleet: Fleet, host: MakeHost) -> None:
    over = threading.Event()

    def act(_: ssl.SSLSocket) -> None:
        over.wait(60)

    origin, taker = host("origin"), host("h1")
    manifest = origin.publish(content(SIZE))
    with peer_that(fleet, "g2", act) as silent:
        began = time.monotonic()
        taker.fetch(manifest, [origin.as_peer(has_all=True), silent])
        took_s = time.monotonic() - began
        over.set()
    assert taker.path.read_bytes() == content(SIZE)
    assert took_s < STALL_S + SILENT_S


def test_peer_that_cannot_be_reached_is_left_out(host: MakeHost) -> None:
    origin, taker = host("origin"), host("h1")
    manifest = origin.publish(content(SIZE))
    gone = BulkPeer("g2", "127.0.0.1", 1, has_all=False)
    report = taker.fetch(manifest, [origin.as_peer(has_all=True), gone])
    assert taker.path.read_bytes() == content(SIZE)
    assert set(report.faults) == {"g2"}


def test_host_that_begins_later_than_the_one_after_it_is_waited_for(host: MakeHost) -> None:
    origin, first, second = host("origin"), host("h1"), host("h2")
    manifest = origin.publish(content(SIZE))
    with ThreadPoolExecutor(1) as threads:
        later = threads.submit(second.fetch, manifest, [origin.as_peer(has_all=True), first.as_peer(has_all=False)])
        first.fetch(manifest, [origin.as_peer(has_all=True), second.as_peer(has_all=False)])
        report = later.result()
    assert second.path.read_bytes() == content(SIZE)
    assert report.received["h1"] > SIZE
    assert origin.server.sent < 1.1 * SIZE + 2 * manifest.list_bytes


def test_host_that_never_begins_costs_the_wait_for_it(host: MakeHost) -> None:
    origin, first, second = host("origin"), host("h1"), host("h2")
    manifest = origin.publish(content(SIZE))
    began = time.monotonic()
    report = second.fetch(manifest, [origin.as_peer(has_all=True), first.as_peer(has_all=False)])
    assert second.path.read_bytes() == content(SIZE)
    assert time.monotonic() - began < 3 * START_S_MAX
    assert report.received["origin"] > SIZE


def test_peer_with_another_name_than_its_certificate_is_not_believed(host: MakeHost) -> None:
    origin, taker = host("origin"), host("h1")
    manifest = origin.publish(content(1000))
    with pytest.raises(PeerUnreachableError, match="certificate"):
        taker.fetch(manifest, [BulkPeer("h3", "127.0.0.1", origin.port, has_all=True)])


def test_version_that_nobody_has_is_not_fetched(host: MakeHost) -> None:
    origin, taker = host("origin"), host("h1")
    manifest = origin.publish(content(1000))
    other = ObjectManifest(name=NAME, size=1000, chunks=1, mean_bytes=manifest.mean_bytes, list_digest=bytes(32))
    with pytest.raises(PeerUnreachableError, match="does not know"):
        taker.fetch(other, [origin.as_peer(has_all=True)])


def test_second_fetch_to_the_same_path_is_refused_while_the_first_runs(host: MakeHost) -> None:
    origin, taker = host("origin"), host("h1")
    manifest = origin.publish(content(SIZE))
    origin.pace.set_rate(SIZE / 2)
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(taker.fetch, manifest, [origin.as_peer(has_all=True)])
        assert taker.objects.wait_for(manifest.list_digest, 20.0) is not None
        with pytest.raises(StoreError, match="being fetched already"):
            taker.fetch(manifest, [origin.as_peer(has_all=True)])
        origin.pace.set_rate(0)
        first.result()
    assert taker.path.read_bytes() == content(SIZE)


def test_path_that_cannot_be_written_is_this_hosts_fault(host: MakeHost) -> None:
    origin, taker = host("origin"), host("h1")
    manifest = origin.publish(content(1000))
    part_path(taker.path).mkdir()
    with pytest.raises(StoreError):
        taker.fetch(manifest, [origin.as_peer(has_all=True)])


@pytest.mark.parametrize("count", [0, SOURCES_MAX + 1])
def test_no_peer_and_more_than_the_limit_are_refused(host: MakeHost, count: int) -> None:
    taker = host("h1")
    manifest = host("origin").publish(b"some")
    peers = [BulkPeer(f"p{number}", "127.0.0.1", 1, has_all=True) for number in range(count)]
    with pytest.raises(LocalProtocolError):
        taker.fetch(manifest, peers)


def test_newest_version_is_described_to_who_asks_for_the_name(host: MakeHost) -> None:
    origin, taker = host("origin"), host("h1")
    origin.publish(content(1000))
    manifest = origin.publish(content(2000))
    connection = BulkConnection(origin.as_peer(has_all=True), taker.dialling)
    assert connection.describe(NAME) == manifest
    with pytest.raises(NotFoundError, match="does not know"):
        connection.describe("another")
    connection.end()


def test_rate_holds_over_all_connections_of_the_origin(host: MakeHost) -> None:
    origin, takers = host("origin"), [host("h1"), host("h2")]
    manifest = origin.publish(content(SIZE))
    origin.pace.set_rate(2 * SIZE)
    began = time.monotonic()
    fetch_all(origin, takers, manifest)
    assert time.monotonic() - began >= 0.4
