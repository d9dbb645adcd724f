"""Settings of single peers between real agents: not accelerated, a codec, and hours of a limit."""

from tests.agent.hosts import DESTINATION_ADDRESS, Host, echoing

Hosts = tuple[Host, Host]
RATE = 1_000_000.0
ALWAYS = (
    f'hours = [{{ begin = "00:00", end = "12:00", link_bytes_per_s_max = {RATE} }}, '
    f'{{ begin = "12:00", end = "00:00", link_bytes_per_s_max = {RATE} }}]'
)


def test_a_peer_that_is_not_to_be_accelerated_is_reached_as_without_agents(hosts: Hosts) -> None:
    source, destination = hosts
    source.peer_lines = ["accelerate = false"]
    for host in hosts:
        host.start()
    with echoing(destination.listen()), source.connect(DESTINATION_ADDRESS) as guest:
        guest.sendall(b"stream")
        assert guest.recv(6) == b"stream"
        found = source.wait(lambda status: any(one.passthrough_reason for one in status.migrations)).migrations[0]
    assert found.passthrough_reason == "configured"
    assert any("[[peers]] of destination.lab" in event.detail for event in found.events)
    assert destination.status().migrations == []


def test_a_peers_codec_and_hours_hold_and_the_record_says_why(hosts: Hosts) -> None:
    source, destination = hosts
    source.peer_lines = ['codec = "none"', ALWAYS]
    for host in hosts:
        host.start()
    with echoing(destination.listen()), source.connect(DESTINATION_ADDRESS) as guest:
        guest.sendall(b"stream")
        status = source.wait(lambda status: any(one.granted_bytes_per_s == RATE for one in status.migrations))
        said = {event.event: event.detail for event in status.migrations[0].events}
        assert said["codec"] == "none by [[peers]] of destination.lab"
        assert said["limit"].startswith("8.0 Mbit/s by [[peers]] of destination.lab, ")
        source.peer_lines = []
        source.write_config()
        assert source.get("/v1/reload", "POST")[0] == 200
        status = source.wait(lambda status: status.migrations[0].granted_bytes_per_s == -1)
        assert [one.detail for one in status.migrations[0].events if one.event == "limit"][-1] == "none"
