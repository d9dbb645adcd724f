import msgspec
import pytest

from dwcp_migrate.errors import PlacementError
from dwcp_migrate.placement import fleet as fleets
from dwcp_migrate.placement.fleet import Cell, Rule, decode_fleet, encode_fleet
from dwcp_migrate.placement.model import build_problem
from tests.placement.fleets import domain, fleet, host


def test_a_fleet_survives_its_file() -> None:
    whole = fleet(
        [host("a", cells=[Cell(vcpus=8, memory_mib=1024)]), host("b", rack="r")],
        [domain("x", "a", series={"vcpus": [1.0, 2.0]}), domain("y")],
        Rule(name="part", kind="apart", domains=["x", "y"]),
        latency_ms={"dc1": {"dc2": 5.0}},
    )
    assert decode_fleet(encode_fleet(whole)) == whole


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"hosts": [host("a"), host("a")]}, "host a is there twice"),
        ({"domains": [domain("x", "nowhere")]}, "is no host"),
        ({"domains": [domain("x", "", arriving="a")]}, "from nowhere"),
        ({"rules": [Rule(name="r", kind="apart", domains=["ghost"])]}, "is no domain"),
        ({"rules": [Rule(name="r", kind="pin", domains=["x"], zones=["zzz"])]}, "is no host"),
        ({"rules": [Rule(name="r", kind="pin", domains=["x"])]}, "names no host"),
        ({"rules": [Rule(name="r", kind="apart", domains=["x", "x"])]}, "twice"),
    ],
)
def test_what_contradicts_itself_is_refused_with_its_name(changed: dict[str, object], says: str) -> None:
    whole = msgspec.structs.replace(fleet([host("a")], [domain("x", "a")]), **changed)
    with pytest.raises(PlacementError, match=says):
        decode_fleet(encode_fleet(whole))


@pytest.mark.parametrize(
    "text", [b"{", b'{"hosts": 3}', b'{"hosts": [], "colour": 1}', b'{"hosts":[{"name":"","capacity":{}}]}']
)
def test_what_is_no_fleet_is_refused(text: bytes) -> None:
    with pytest.raises(PlacementError, match="fleet"):
        decode_fleet(text)


def test_the_limits_hold_at_and_past_them(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode_fleet(fleet([host("a")], []))
    monkeypatch.setattr(fleets, "FILE_BYTES_MAX", len(data))
    assert decode_fleet(data).hosts
    with pytest.raises(PlacementError, match="more than"):
        decode_fleet(data + b" ")
    monkeypatch.undo()
    with pytest.raises(PlacementError):
        decode_fleet(encode_fleet(fleet([host("a")], [domain("x", "a", cells=fleets.CELLS_MAX + 1)])))
    assert decode_fleet(encode_fleet(fleet([host("a")], [domain("x", "a", cells=fleets.CELLS_MAX)])))
    many = {f"r{number}": 1.0 for number in range(fleets.RESOURCES_MAX - 2)}
    some = fleets.Domain(name="x", demand=many)
    assert len(build_problem(fleet([host("a")], [some])).resources) == fleets.RESOURCES_MAX
    with pytest.raises(PlacementError, match="resources"):
        build_problem(fleet([host("a")], [fleets.Domain(name="x", demand=many | {"one": 1.0})]))
