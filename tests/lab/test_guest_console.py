from pathlib import Path

import pytest

from dwcp_migrate.errors import LabError
from dwcp_migrate.lab.guest import TAIL_BYTES, GuestMix, GuestOptions, domain_xml, last_report

LINE = "pages: seq={seq} mono_ms=5000 pages=100 checked=40 passes=2 dirtied=7 errors=0\r\n"


def test_the_newest_whole_line_counts(tmp_path: Path) -> None:
    console = tmp_path / "console"
    console.write_text("SeaBIOS\r\n" + LINE.format(seq=1) + LINE.format(seq=2) + LINE.format(seq=3)[:-20])
    report = last_report(console)
    assert report is not None
    assert (report.seq, report.passes, report.errors) == (2, 2, 0)


def test_a_long_console_is_read_from_its_end_only(tmp_path: Path) -> None:
    console = tmp_path / "console"
    console.write_text(LINE.format(seq=1) + "x" * TAIL_BYTES)
    assert last_report(console) is None
    with console.open("a") as file:
        file.write("\n" + LINE.format(seq=2))
    report = last_report(console)
    assert report is not None
    assert report.seq == 2


def test_no_console_is_no_report(tmp_path: Path) -> None:
    assert last_report(tmp_path / "none") is None


def test_a_domain_has_a_disk_only_when_asked() -> None:
    assert "<disk" not in domain_xml(GuestOptions())
    assert "/db.raw'" in domain_xml(GuestOptions(name="db", disk_mib=64))


def test_a_mix_that_is_no_whole_is_refused() -> None:
    with pytest.raises(LabError, match="100 percent"):
        GuestMix(zero=50)
