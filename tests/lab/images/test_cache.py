import threading
from pathlib import Path

import pytest

from dwcp_migrate.lab.images import cache


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DWCP_LAB_CACHE", str(tmp_path))


def test_an_entry_is_built_once_and_found_again(tmp_path: Path) -> None:
    builds = []

    def build(path: Path) -> None:
        builds.append(path)
        (path / "product").write_text("done")

    first = cache.entry("thing", "k1", build)
    assert cache.entry("thing", "k1", build) == first == tmp_path / "thing-k1"
    assert (first / "product").read_text() == "done"
    assert len(builds) == 1


def test_a_failed_build_leaves_no_entry_and_the_next_one_starts_clean() -> None:
    def fail(path: Path) -> None:
        (path / "half").write_text("")
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        cache.entry("thing", "k1", fail)
    assert not any(path.is_dir() for path in cache.directory().iterdir())
    entry = cache.entry("thing", "k1", lambda path: (path / "whole").touch())
    assert [path.name for path in entry.iterdir()] == ["whole"]


def test_what_an_interrupted_build_left_is_removed(tmp_path: Path) -> None:
    left = tmp_path / "thing-k0.unfinished"
    left.mkdir()
    (left / "half").touch()
    cache.entry("thing", "k1", lambda path: (path / "whole").touch())
    assert not left.exists()


def test_two_builders_of_the_same_entry_build_it_once() -> None:
    begun, builds = threading.Event(), []

    def slow(path: Path) -> None:
        begun.set()
        builds.append(path)
        second.join(0.2)  # the other one waits for our lock all the while

    second = threading.Thread(target=lambda: (begun.wait(), cache.entry("thing", "k1", slow)))
    second.start()
    cache.entry("thing", "k1", slow)
    second.join()
    assert len(builds) == 1


def test_a_digest_tells_parts_apart_by_their_borders() -> None:
    assert cache.digest("ab", "c") != cache.digest("a", "bc")
    assert cache.digest("a", "b") == cache.digest(b"a", b"b")
