"""Keys that root makes for the agent: its user reads them, and nobody else does."""

import grp
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dwcp_migrate.cli import run
from dwcp_migrate.cli.support import agent_group
from dwcp_migrate.consensus.io.key_file import read_identity
from dwcp_migrate.errors import ConfigError

GROUP, STRANGERS = "daemon", "nogroup"
COMMANDS = {
    "tls/hv1.example.key": ["cert", "csr", "hv1.example", "--directory", "tls"],
    "pbft.key": ["cluster", "key", "--file", "pbft.key"],
}


@pytest.fixture
def etc(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory that every user may enter, as /etc is; the umask is a careful administrator's."""
    directory = Path(tempfile.mkdtemp(prefix="dwcp-keys-"))
    directory.chmod(0o755)
    monkeypatch.chdir(directory)
    before = os.umask(0o077)
    yield directory
    os.umask(before)
    shutil.rmtree(directory)


def reads(path: Path, group: str) -> bool:
    """Try as a user that is in this group only."""
    done = subprocess.run(
        ["/bin/cat", str(path)],
        capture_output=True,
        check=False,
        user=65534,
        group=grp.getgrnam(group).gr_gid,
        extra_groups=[],
    )
    return done.returncode == 0


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("given", [None, GROUP])
def test_the_agents_group_reads_a_key_that_root_made_and_nobody_else_does(
    etc: Path, name: str, given: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_group, "AGENT_GROUP", GROUP if given is None else "no-such-group")
    assert run([*COMMANDS[name], *(["--group", given] if given else [])]) == 0
    found = (etc / name).stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (0, grp.getgrnam(GROUP).gr_gid, 0o640)
    assert reads(etc / name, GROUP)
    assert not reads(etc / name, STRANGERS)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_key_is_the_owners_alone_where_there_is_no_such_group(
    etc: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_group, "AGENT_GROUP", "no-such-group")
    assert run(COMMANDS[name]) == 0
    assert stat.S_IMODE((etc / name).stat().st_mode) == 0o600
    assert not reads(etc / name, GROUP)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_key_that_is_there_is_kept_and_given_to_the_group(etc: Path, name: str) -> None:
    assert run(COMMANDS[name]) == 0
    before = (etc / name).read_bytes()
    assert run([*COMMANDS[name], "--group", GROUP]) == 0
    assert (etc / name).read_bytes() == before
    assert stat.S_IMODE((etc / name).stat().st_mode) == 0o640


def test_a_directory_that_keeps_the_agent_out_is_told_and_left_as_it_is(
    etc: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (etc / "tls").mkdir(mode=0o700)
    assert run([*COMMANDS["tls/hv1.example.key"], "--group", GROUP]) == 0
    out, err = capsys.readouterr()
    assert err == f"the agent cannot enter tls: chgrp {GROUP} tls && chmod 0750 tls\n"
    assert f"(private, mode 0640, group {GROUP})" in out
    assert stat.S_IMODE((etc / "tls").stat().st_mode) == 0o700


@pytest.mark.parametrize("name", COMMANDS)
def test_a_group_that_is_not_there_is_refused_before_anything_is_made(
    etc: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*COMMANDS[name], "--group", "no-such-group"]) == 2
    assert "there is no group no-such-group" in capsys.readouterr().err
    assert list(etc.iterdir()) == []


def test_a_key_without_permission_is_not_said_to_be_missing(etc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_path: Path) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(ConfigError) as raised:
        read_identity(etc / "pbft.key")
    assert str(raised.value) == f"no permission to read the key {etc / 'pbft.key'}"
    assert raised.value.hint.startswith("let the agent read it: chgrp dwcp-migrate ")
