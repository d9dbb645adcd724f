from dwcp_migrate.agent.tracking.domain_matching import EXTRA_MEMORY_BYTES_MAX, KnownDomain, UnmatchedMigration, bind
from dwcp_migrate.units import GIB, MIB

A = KnownDomain("a", "vm-a", 2 * GIB, moving=True)
B = KnownDomain("b", "vm-b", 4 * GIB, moving=True)
IDLE = KnownDomain("c", "vm-c", 8 * GIB)
KNOWN = {domain.uuid: domain for domain in (A, B, IDLE)}


def ask(identity: str = "one", candidates: str = "", **fields: object) -> UnmatchedMigration:
    return UnmatchedMigration(identity, "source memory", frozenset(candidates), **fields)  # type: ignore[arg-type]


def names(*questions: UnmatchedMigration, taken: str = "") -> dict[str, str]:
    found = bind(questions, KNOWN, {"source memory": set(taken)})
    return {identity: domain.uuid for identity, domain in found.items()}


def test_a_single_announced_domain_is_it() -> None:
    assert names(ask(candidates="a")) == {"one": "a"}


def test_an_announced_domain_is_it_even_where_libvirt_is_silent() -> None:
    assert bind([ask(candidates="c")], {"c": IDLE}, {}) == {"one": IDLE}


def test_two_that_move_are_told_apart_by_the_announcement() -> None:
    assert names(ask(candidates="bc")) == {"one": "b"}


def test_two_that_are_both_possible_are_not_guessed() -> None:
    assert names(ask(candidates="ab")) == {}


def test_the_stream_tells_its_uuid() -> None:
    assert names(ask(candidates="ab", stream_uuid="b")) == {"one": "b"}


def test_a_uuid_that_nobody_knows_ties_nothing() -> None:
    assert names(ask(stream_uuid="z")) == {}


def test_the_size_of_memory_tells_domains_apart() -> None:
    assert names(ask(candidates="ab", memory_bytes=2 * GIB + 17 * MIB)) == {"one": "a"}


def test_a_size_that_fits_nobody_says_nothing() -> None:
    assert names(ask(candidates="a", memory_bytes=64 * GIB)) == {"one": "a"}
    assert names(ask(candidates="ab", memory_bytes=4 * GIB + EXTRA_MEMORY_BYTES_MAX + 1)) == {}


def test_what_is_tied_is_out_of_the_question_for_others() -> None:
    assert names(ask("one", "ab"), ask("two", "a")) == {"one": "b", "two": "a"}
    assert names(ask(candidates="ab"), taken="a") == {"one": "b"}


def test_one_domain_left_for_two_migrations_is_neither_s_until_one_is_over() -> None:
    """Of two alike the other has arrived already, and its migration's record is not closed yet."""
    assert names(ask("one", "bc"), ask("two", "bc")) == {}
    assert names(ask("two", "bc")) == {"two": "b"}
    assert names(ask("one", "b"), ask("two", "bc", stream_uuid="b")) == {"two": "b"}


def test_of_several_that_begin_at_once_the_first_that_libvirt_lists_is_not_every_one_s() -> None:
    """B's connection is there and its job is not yet; nobody but A moves as far as libvirt says."""
    known = {"a": A, "b": KnownDomain("b", "vm-b", 4 * GIB)}
    both = [ask("one", "ab"), ask("two", "ab")]
    assert bind(both, known, {}) == {}
    sized = [ask("one", "ab", memory_bytes=4 * GIB + MIB), ask("two", "ab", memory_bytes=2 * GIB + MIB)]
    found = bind(sized, known, {})
    assert {identity: domain.uuid for identity, domain in found.items()} == {"one": "b", "two": "a"}


def test_a_domain_that_moves_is_not_the_only_answer_while_another_migration_is_being_agreed_on() -> None:
    """The other one may be whose job libvirt lists first."""
    known = {"a": A, "b": KnownDomain("b", "vm-b", 4 * GIB)}
    assert bind([ask(candidates="ab")], known, {}) == {"one": A}
    assert bind([ask(candidates="ab")], known, {}, opening=1) == {}


def test_a_domain_that_moves_and_does_not_fit_is_not_preferred_to_one_that_fits() -> None:
    known = {"a": KnownDomain("a", "vm-a", 2 * GIB), "b": B}
    found = bind([ask(candidates="ab", memory_bytes=2 * GIB + MIB)], known, {})
    assert {identity: domain.uuid for identity, domain in found.items()} == {"one": "a"}


def test_memory_and_disks_of_one_domain_are_tied_both() -> None:
    disk = UnmatchedMigration("disk", "source disk", frozenset("a"))
    assert names(ask(candidates="a"), disk) == {"one": "a", "disk": "a"}


def test_without_an_announcement_only_what_moves_counts() -> None:
    assert bind([ask()], {"a": A, "c": IDLE}, {}) == {"one": A}
    assert bind([ask()], {"c": IDLE}, {}) == {}
