"""The page of the command line is what the code says of itself."""

import subprocess
import sys
from pathlib import Path

from dwcp_migrate.cli import COMMANDS

REPOSITORY = Path(__file__).parents[2]
PAGE = REPOSITORY / "docs/cli.md"


def test_the_page_of_commands_is_what_the_code_describes() -> None:
    made = subprocess.run(
        [sys.executable, "packaging/cli_page.py"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert PAGE.read_text() == made.stdout, "write it anew: .venv/bin/python packaging/cli_page.py > docs/cli.md"


def test_every_command_has_its_section_with_its_usage() -> None:
    text = PAGE.read_text()
    for name in COMMANDS:
        assert f"\n### dwcp-migrate {name}\n" in text
        assert f"\ndwcp-migrate {name} [OPTIONS]" in text


def test_options_that_are_told_once_are_not_told_again() -> None:
    _, _, commands = PAGE.read_text().partition("## This host")
    assert "| `--json`" not in commands
    assert "| `--socket" not in commands
