"""The client table against a naive one that remembers everything."""

from hypothesis import given
from hypothesis import strategies as st

from dwcp_migrate.consensus.pbft.model.client_table import CLIENT_WINDOW, ClientProgress, ClientTable, RequestOutcome


class Naive:
    """All numbers ever executed; what is within the window of the highest is remembered."""

    def __init__(self) -> None:
        self.done: dict[str, dict[int, RequestOutcome]] = {}

    def progress_of(self, client: str, number: int) -> ClientProgress:
        row = self.done.get(client, {})
        if row and number <= max(row) - CLIENT_WINDOW:
            return ClientProgress.STALE
        return ClientProgress.DONE if number in row else ClientProgress.NEW

    def outcome(self, client: str, number: int) -> RequestOutcome | None:
        known = self.progress_of(client, number) is ClientProgress.DONE
        return self.done[client][number] if known else None


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 3 * CLIENT_WINDOW)), max_size=60))
def test_the_table_answers_as_one_that_forgets_nothing(asked: list[tuple[str, int]]) -> None:
    table, naive = ClientTable(), Naive()
    for sequence, (client, number) in enumerate(asked):
        assert table.progress_of(client, number) is naive.progress_of(client, number)
        assert table.outcome(client, number) == naive.outcome(client, number)
        if table.progress_of(client, number) is ClientProgress.NEW:
            outcome = RequestOutcome(sequence, b"")
            table.record(client, number, outcome)
            naive.done.setdefault(client, {})[number] = outcome
        again = ClientTable.load(table.dump())
        for probe in (number, number + 1, number - CLIENT_WINDOW, number - CLIENT_WINDOW + 1):
            assert table.progress_of(client, probe) is naive.progress_of(client, probe)
            assert again.progress_of(client, probe) is naive.progress_of(client, probe)
    assert all(len(rows) <= CLIENT_WINDOW for _, rows in table.dump())


def test_the_window_ends_where_it_says() -> None:
    table = ClientTable()
    table.record("c", 1000, RequestOutcome(1, b""))
    assert table.progress_of("c", 1000 - CLIENT_WINDOW + 1) is ClientProgress.NEW
    assert table.progress_of("c", 1000 - CLIENT_WINDOW) is ClientProgress.STALE


def test_a_far_jump_forgets_everything_before_it() -> None:
    table = ClientTable()
    for number in range(50):
        table.record("c", number, RequestOutcome(1, b""))
    table.record("c", 10**15, RequestOutcome(2, b""))
    assert [number for number, _ in dict(table.dump())["c"]] == [10**15]


def test_who_is_no_member_any_more_is_forgotten() -> None:
    table = ClientTable()
    table.record("a", 1, RequestOutcome(1, b""))
    table.record("b", 1, RequestOutcome(1, b""))
    table.forget({"a", "unknown"})
    assert [client for client, _ in table.dump()] == ["b"]
    assert table.progress_of("a", 1) is ClientProgress.NEW
