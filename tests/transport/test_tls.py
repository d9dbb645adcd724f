"""The TLS context that is kept while its files stay as they are."""

import shutil
from pathlib import Path

import pytest

from dwcp_migrate.errors import ConfigError
from dwcp_migrate.pki import create_authority, issue
from dwcp_migrate.transport.tls import ContextCache


def test_it_is_made_once_and_anew_when_a_file_is_renewed(tmp_path: Path) -> None:
    create_authority(tmp_path)
    issue(tmp_path, "hv1")
    files = (tmp_path / "ca.pem", tmp_path / "hv1.pem", tmp_path / "hv1.key")
    cache = ContextCache("server")
    first = cache.get(*files)
    assert cache.get(*files) is first
    renewed = tmp_path / "renewed.pem"
    shutil.copy(files[1], renewed)
    renewed.replace(files[1])
    second = cache.get(*files)
    assert second is not first
    assert cache.get(*files) is second


def test_files_that_are_not_there_are_said_each_time_and_read_once_they_are(tmp_path: Path) -> None:
    cache = ContextCache("server")
    files = (tmp_path / "ca.pem", tmp_path / "hv1.pem", tmp_path / "hv1.key")
    for _ in range(2):
        with pytest.raises(ConfigError, match="TLS file"):
            cache.get(*files)
    create_authority(tmp_path)
    issue(tmp_path, "hv1")
    assert cache.get(*files)
