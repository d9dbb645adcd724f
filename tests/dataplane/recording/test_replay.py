"""The replay of recorded connections: what it reports is what happened."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from dwcp_migrate.cli.develop.replay import command
from dwcp_migrate.dataplane.recording.replay import ReplayOptions, replay_recordings
from dwcp_migrate.delta import Codec, Coding
from dwcp_migrate.errors import NotFoundError
from tests.vectors.load import connections

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


def test_a_cut_off_recording_is_replayed_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "cut"
    path.write_bytes(connections(CASE)[1][:123_457])
    report = replay_recordings([path], OPTIONS).total
    assert report.identical
    assert report.raw_bytes == 123_457


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
