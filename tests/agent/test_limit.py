"""`limit` between real agents: held at once, after a restart too, and let go."""

import msgspec

from dwcp_migrate.api.limits import LinkLimit, LinkLimits
from tests.agent.hosts import DESTINATION_ADDRESS, Host, echoing

Hosts = tuple[Host, Host]
RATE = 1_000_000.0


def limit(host: Host, rate: float) -> LinkLimit:
    status, body = host.get(f"/v1/limit?peer=destination.lab&bytes_per_s={rate}", "POST")
    assert status == 200, body
    return msgspec.json.decode(body, type=LinkLimit)


def in_force(host: Host) -> list[float]:
    found = msgspec.json.decode(host.get("/v1/limits")[1], type=LinkLimits).limits
    return [one.bytes_per_s for one in found]


def test_a_limit_holds_what_runs_outlives_the_agent_and_is_taken_off(hosts: Hosts) -> None:
    source, destination = hosts
    source.peers.append(("third.lab", ["10.77.0.3"]))
    for host in hosts:
        host.start()
    with echoing(destination.listen()), source.connect(DESTINATION_ADDRESS) as guest:
        guest.sendall(b"stream")
        source.wait(lambda status: any(found.state != "opening" for found in status.migrations))
        assert limit(source, RATE).bytes_per_s == RATE
        source.wait(lambda status: status.migrations[0].granted_bytes_per_s == RATE)
        assert in_force(source) == [RATE, 0.0]
        source.stop()
        source.start()
        assert in_force(source) == [RATE, 0.0]
        source.wait(lambda status: bool(status.migrations) and status.migrations[0].granted_bytes_per_s == RATE)
        assert limit(source, 0.0).bytes_per_s == 0.0
        source.wait(lambda status: status.migrations[0].granted_bytes_per_s == -1)
    assert source.get("/v1/limit?peer=nobody.lab&bytes_per_s=1e6", "POST")[0] == 404
    assert source.get("/v1/limit?peer=destination.lab&bytes_per_s=10", "POST")[0] == 400
