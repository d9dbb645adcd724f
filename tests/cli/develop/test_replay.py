"""`replay`: its words, and files that are no stream."""

from pathlib import Path

import pytest

from dwcp_migrate.cli import run


@pytest.mark.parametrize(
    ("content", "code", "said"),
    [
        (b"", 2, "is empty"),
        (b"\x28\xb5\x2f\xfdmore", 2, "is compressed\nhint: unpack it first: zstd -d"),
        (None, 3, "No such file"),
    ],
)
def test_what_is_no_stream_is_refused(
    content: bytes | None, code: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / "stream").write_bytes(content)
    assert run(["replay", str(tmp_path / "stream")]) == code
    assert said in capsys.readouterr().err


def test_the_ratio_is_raw_bytes_for_each_byte_on_the_wire(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "stream").write_bytes(bytes(1 << 20))
    assert run(["replay", str(tmp_path / "stream")]) == 0
    total = next(line.split() for line in capsys.readouterr().out.splitlines() if line.startswith(" total"))
    ratio = float(total[total.index("MiB") + 3])
    assert ratio > 100
