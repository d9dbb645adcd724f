import pytest

from bench.fleets import generate
from dwcp_migrate.errors import PlacementError
from dwcp_migrate.placement.check import violations
from dwcp_migrate.placement.fleet import Rule
from dwcp_migrate.placement.model import build_problem
from dwcp_migrate.placement.online import Placer, Reservation
from dwcp_migrate.placement.planner import places
from tests.placement.fleets import domain, fleet, host, rng


def placer() -> Placer:
    hosts = [host("a", vcpus=4), host("b", vcpus=4)]
    return Placer(build_problem(fleet(hosts, [domain(f"x{n}") for n in range(5)])))


def test_placements_under_way_hold_their_room() -> None:
    ours = placer()
    held = [ours.place([f"x{n}"]) for n in range(4)]
    with pytest.raises(PlacementError, match="no host takes x4"):
        ours.place(["x4"])
    ours.release(held[0])
    assert ours.place(["x4"]).hosts == held[0].hosts


def test_a_batch_that_does_not_fit_holds_nothing() -> None:
    ours = placer()
    with pytest.raises(PlacementError):
        ours.place([f"x{n}" for n in range(5)])
    assert len(ours.place([f"x{n}" for n in range(4)]).hosts) == 4


def test_a_reservation_expires_unless_it_is_committed() -> None:
    ours = placer()
    late = ours.place(["x0", "x1"], expires_at=10.0)
    kept = ours.place(["x2"], expires_at=10.0)
    ours.commit(kept)
    assert ours.expire(9.9) == []
    assert ours.expire(10.0) == [late]
    for ended in (late, kept):
        for way in (ours.commit, ours.release):
            with pytest.raises(PlacementError, match="no longer held"):
                way(ended)
    ours.remove("x2")
    assert len(ours.place([f"x{n}" for n in range(4)]).hosts) == 4


def test_what_is_placed_is_not_placed_again() -> None:
    ours = placer()
    ours.add("x0", "a")
    with pytest.raises(PlacementError, match="has a place already"):
        ours.place(["x0"])
    with pytest.raises(PlacementError, match="no domain"):
        ours.place(["ghost"])
    with pytest.raises(PlacementError, match="does not run"):
        ours.remove("x1")


def test_placements_that_alternate_with_ends_never_break_a_rule() -> None:
    whole = generate.mixed(rng(5), 300, 12)
    ours = Placer(build_problem(whole))
    draw = rng(6)
    held: dict[str, Reservation] = {}
    for _ in range(600):
        name = f"vm{int(draw.integers(300)) + 1}"
        if name in held:
            ours.release(held.pop(name))
            continue
        try:
            held[name] = ours.place([name])
        except PlacementError:
            continue
    assert len(held) > 50
    assert violations(whole, places(ours.problem)) == []


def test_those_that_belong_together_come_together() -> None:
    rule = Rule(name="r", kind="together", domains=["x", "y"])
    ours = Placer(build_problem(fleet([host("a"), host("b")], [domain("x"), domain("y")], rule)))
    held = ours.place(["y"])
    assert held.domains == ("x", "y")
    assert len(set(held.hosts)) == 1
