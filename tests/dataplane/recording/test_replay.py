"""The replay of recorded connections: what it reports is what happened."""

import random
from pathlib import Path

import pytest
from click.testing import CliRunner

from dwcp_migrate.cli.develop.replay import command
from dwcp_migrate.dataplane.recording.replay import ReplayOptions, replay_recordings
from dwcp_migrate.delta import Codec, Coding
from dwcp_migrate.errors import NotFoundError
from tests.vectors.load import CASES, connections

CASE = "qemu-10.0-multifd"
OPTIONS = ReplayOptions(Coding(Codec.ZSTD, 1), cache_bytes=64 << 20)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = []
    for number, data in enumerate(connections(CASE)):
        paths.append(tmp_path / f"{number}.stream")
        paths[-1].write_bytes(data)
    return paths


def test_all_connections_are_rebuilt_and_add_up_to_the_total(files: list[Path]) -> None:
    result = replay_recordings(files, OPTIONS)
    assert [report.kind for report in result.files] == ["main", "multifd", "multifd"]
    assert all(report.identical for report in result.files)
    assert result.total.raw_bytes == sum(path.stat().st_size for path in files)
    assert result.total.wire_bytes == sum(report.wire_bytes for report in result.files)
    assert result.total.wire_bytes < result.total.raw_bytes / 20
    both = result.total.first_pass.raw_bytes + result.total.resent.raw_bytes
    assert both == result.total.raw_bytes


def test_pages_are_counted_by_form(files: list[Path]) -> None:
    pages = replay_recordings(files, OPTIONS).total.pages
    assert pages.zero == 6022
    assert pages.new + pages.delta + pages.duplicate + pages.same > 4000
    assert pages.resent > 3000
    assert pages.delta > 1000


@pytest.mark.parametrize("case", CASES)
def test_of_a_recording_that_was_cut_off_the_figures_are_those_of_what_is_there(case: str, tmp_path: Path) -> None:
    path, rng = tmp_path / "cut.stream", random.Random(case)
    for number, whole in enumerate(connections(case)):
        for size in (1, len(whole), *(rng.randrange(1, len(whole)) for _ in range(12))):
            path.write_bytes(whole[:size])
            report = replay_recordings([path], OPTIONS).files[0]
            assert (report.identical, report.raw_bytes) == (True, size), size
            may_end = number > 0 and not report.unfinished  # a multifd channel's file may end behind any packet
            assert may_end or bool(report.unfinished) != bool(report.opaque_reason), size
            assert size < len(whole) or not report.unfinished


def test_what_a_cut_off_recording_lacks_is_said(files: list[Path]) -> None:
    files[0].write_bytes(files[0].read_bytes()[:100])
    files[1].write_bytes(files[1].read_bytes()[:123_457])
    said = CliRunner().invoke(command, list(map(str, files))).output
    assert "0.stream ends after 100 B without the rest of a record: it was cut off" in said
    assert "1.stream ends after 120.6 KiB without the rest of a record: it was cut off" in said
    assert "2.stream ends" not in said


def test_small_segments_and_no_codec_and_no_cache_work_too(files: list[Path]) -> None:
    small = ReplayOptions(Coding(Codec.NONE), cache_bytes=0, segment_bytes=64 << 10)
    assert replay_recordings(files[:2], small).total.identical


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="cannot read"):
        replay_recordings([tmp_path / "nothing"], OPTIONS)


def test_the_command_prints_a_table_or_json(files: list[Path]) -> None:
    runner = CliRunner()
    arguments = [str(path) for path in files]
    text = runner.invoke(command, ["--cache-mb", "64", *arguments])
    assert text.exit_code == 0
    assert "multifd" in text.output
    assert "CPU s/GB" in text.output
    json = runner.invoke(command, ["--json", "--codec", "lz4", "--cache-mb", "64", *arguments])
    assert '"identical": true' in json.output
