from dwcp_migrate.hypervisor.announcements import PENDING_MAX, SESSIONS_PER_ANNOUNCEMENT, Announcements

LIFETIME_S = 120.0


def use(announcements: Announcements, now: float, migrating: tuple[str, ...] = ()) -> str:
    return announcements.use(announcements.candidates(migrating, now), now)


def announced(*uuids: str, now: float = 0.0) -> Announcements:
    announcements = Announcements(LIFETIME_S)
    for uuid in uuids:
        announcements.announce(uuid, f"vm-{uuid}", now)
    return announcements


def test_nothing_announced_opens_nothing() -> None:
    assert use(announced(), 0.0) == ""


def test_an_announcement_opens_the_stream_and_the_disks_and_no_more() -> None:
    announcements = announced("a")
    opened = [use(announcements, 1.0) for _ in range(SESSIONS_PER_ANNOUNCEMENT + 1)]
    assert opened == ["a"] * SESSIONS_PER_ANNOUNCEMENT + [""]


def test_a_session_that_was_withdrawn_opens_its_door_again() -> None:
    announcements = announced("a")
    for _ in range(SESSIONS_PER_ANNOUNCEMENT + 2):
        assert use(announcements, 1.0) == "a"
        announcements.returned("a", 2.0)
    assert announcements.knows("a")
    assert not announcements.knows("b")


def test_an_announcement_is_good_until_its_lifetime_ends() -> None:
    assert use(announced("a"), LIFETIME_S) == "a"
    assert use(announced("a"), LIFETIME_S + 0.001) == ""


def test_it_stays_while_a_session_runs_and_for_its_lifetime_afterwards() -> None:
    announcements = announced("a")
    assert use(announcements, 1.0) == "a"
    hours_later = 36_000.0
    assert [found.uuid for found in announcements.pending(hours_later)] == ["a"]
    announcements.ended("a", hours_later)
    assert use(announcements, hours_later + LIFETIME_S) == "a"


def test_it_expires_after_its_last_session_ended() -> None:
    announcements = announced("a")
    use(announcements, 1.0)
    announcements.ended("a", 10.0)
    assert use(announcements, 10.0 + LIFETIME_S + 1) == ""


def test_announcing_again_opens_all_doors_anew() -> None:
    announcements = announced("a")
    for _ in range(SESSIONS_PER_ANNOUNCEMENT):
        use(announcements, 1.0)
    announcements.announce("a", "vm-a", 2.0)
    assert use(announcements, 3.0) == "a"


def test_domains_that_the_source_names_are_preferred() -> None:
    assert use(announced("a", "b"), 1.0, migrating=("b",)) == "b"


def test_all_that_leave_at_once_find_a_door_although_the_source_names_only_the_first() -> None:
    announcements = announced("a", "b", "c", "d")
    for _ in range(4):
        assert use(announcements, 1.0, migrating=("c",)) != ""
    assert use(announcements, 1.0, migrating=("c",)) != ""  # and one copies its disks


def test_a_domain_that_the_source_does_not_name_yet_is_a_candidate_until_a_session_carries_it() -> None:
    announcements = announced("a", "b", "c")
    assert use(announcements, 1.0, migrating=("a",)) == "a"
    assert [found.uuid for found in announcements.candidates(("b",), 1.0)] == ["b", "c"]
    assert [found.uuid for found in announcements.candidates(("a",), 1.0)] == ["a", "b", "c"]


def test_names_that_nobody_announced_say_nothing() -> None:
    assert use(announced("a", "b"), 1.0, migrating=("c",)) == "a"


def test_a_domain_whose_doors_are_used_up_is_still_a_candidate() -> None:
    announcements = announced("a", "b")
    for _ in range(SESSIONS_PER_ANNOUNCEMENT):
        use(announcements, 1.0, migrating=("a",))
    assert [found.uuid for found in announcements.candidates((), 1.0)] == ["a", "b"]
    assert [found.uuid for found in announcements.pending(1.0)] == ["b"]


def test_more_than_the_limit_makes_the_oldest_go() -> None:
    announcements = announced(*(str(number) for number in range(PENDING_MAX)))
    assert len(announcements.pending(0.0)) == PENDING_MAX
    announcements.announce("one-more", "vm", 0.0)
    pending = [found.uuid for found in announcements.pending(0.0)]
    assert len(pending) == PENDING_MAX
    assert "0" not in pending
    assert pending[-1] == "one-more"


def test_the_end_of_a_session_that_is_unknown_changes_nothing() -> None:
    announcements = announced("a")
    announcements.ended("z", 1.0)
    announcements.ended("a", 1.0)
    assert announcements.candidates((), 1.0)[0].sessions == 0


def test_nothing_is_left_to_claim_once_its_migration_is_over() -> None:
    announcements = announced("a", "b")
    assert use(announcements, 1.0) == "a"
    announcements.ended("a", 9.0)
    announcements.over("a", began_at=1.0)
    assert [found.uuid for found in announcements.candidates((), 9.0)] == ["b"]
    announcements.over("unknown", began_at=1.0)


def test_the_next_migrations_announcement_outlives_the_one_before() -> None:
    announcements = announced("a")
    assert use(announcements, 1.0) == "a"
    announcements.announce("a", "vm-a", 8.0)
    announcements.ended("a", 9.0)
    announcements.over("a", began_at=1.0)
    assert use(announcements, 10.0) == "a"


def test_it_stays_while_another_session_of_the_migration_runs() -> None:
    announcements = announced("a")
    assert [use(announcements, 1.0), use(announcements, 2.0)] == ["a", "a"]
    announcements.ended("a", 9.0)
    announcements.over("a", began_at=1.0)
    assert [found.sessions for found in announcements.candidates((), 9.0)] == [1]
    announcements.ended("a", 9.5)
    announcements.over("a", began_at=2.0)
    assert announcements.candidates((), 9.5) == []
