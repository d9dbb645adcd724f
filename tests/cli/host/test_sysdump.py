"""`sysdump`: an archive that is private, complete, and says what could not be had."""

import json
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path

from dwcp_migrate.cli import run
from dwcp_migrate.cli.host.sysdump import PART_BYTES_MAX, PROGRAMS, _cut

Call = Callable[..., tuple[int, str, str]]


def test_an_archive_holds_every_part_and_is_private(call: Call, tmp_path: Path) -> None:
    target = tmp_path / "dump.tar.gz"
    config = tmp_path / "agent.toml"
    config.write_text('name = "hv1"\n')
    code, out, _ = call("sysdump", "-o", str(target), "--config", str(config))
    assert (code, out) == (0, f"{target}\n")
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    with tarfile.open(target) as tar:
        parts = {Path(one.name).name: tar.extractfile(one) for one in tar}
        assert set(PROGRAMS) | {"version.txt", "status.json", "doctor.json", "history.json", "agent.toml"} <= set(parts)
        status = parts["status.json"]
        assert status is not None
        assert json.loads(status.read())["state"] == "running"


def test_without_an_agent_the_archive_says_so(tmp_path: Path) -> None:
    target = tmp_path / "dump.tar.gz"
    assert run(["sysdump", "-o", str(target), "--socket", str(tmp_path / "none")]) == 0
    with tarfile.open(target) as tar:
        status = tar.extractfile("dwcp-migrate-sysdump/status.json")
        assert status is not None
        assert b"not to be had: the agent does not answer" in status.read()


def test_a_part_has_a_limit() -> None:
    assert _cut(b"x" * PART_BYTES_MAX) == b"x" * PART_BYTES_MAX
    assert _cut(b"x" * (PART_BYTES_MAX + 1)).endswith(b"[cut]\n")
