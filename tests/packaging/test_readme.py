"""The pages: their limits, their links, and that they promise no command that does not exist."""

import re
from pathlib import Path

import pytest

from dwcp_migrate.cli import COMMANDS, HIDDEN

REPOSITORY = Path(__file__).parents[2]
PAGES = [REPOSITORY / "README.md", REPOSITORY / "CHANGELOG.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]


def test_the_readme_fits_in_its_limit_and_opens_with_the_two_commands() -> None:
    lines = (REPOSITORY / "README.md").read_text().splitlines()
    assert len(lines) <= 200
    opening = [line.partition("#")[0].strip() for line in lines[4:8]]
    assert opening == ["```", "make demo", "make test", "```"]


@pytest.mark.parametrize("page", sorted((REPOSITORY / "docs/adr").glob("*.md")), ids=lambda page: str(page.name))
def test_a_decision_is_told_in_sixty_lines(page: Path) -> None:
    text = page.read_text()
    assert len(text.splitlines()) <= 60
    assert re.findall(r"^## (.*)", text, re.MULTILINE) == ["Question", "Decision", "Why", "Why not", "Costs"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        assert "://" in link or (page.parent / link).exists(), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_commands_that_are_named_exist(page: Path) -> None:
    for name in re.findall(r"(?:`|# |bin/|^    |\| `)dwcp-migrate ([a-z]+)\b", page.read_text(), re.MULTILINE):
        assert name in COMMANDS or name in HIDDEN, f"{page.name} names dwcp-migrate {name}"


@pytest.mark.parametrize("page", ["README.md", "docs/operations.md"])
def test_the_role_is_run_where_its_command_and_ansible_are(page: str) -> None:
    text = (REPOSITORY / page).read_text()
    first = text.index("playbooks/site.yml")
    assert "make packages" in text[:first]
    assert "export PATH=$PWD/../.venv/bin:$PATH" in text[text.rindex("cd ansible", 0, first) : first]


def test_make_targets_that_are_named_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        assert set(re.findall(r"`make ([a-z]+)`", page.read_text())) <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_files_that_are_named_exist(page: Path) -> None:
    roots = [REPOSITORY, REPOSITORY / "dwcp_migrate", REPOSITORY / "tests/consensus", REPOSITORY / "ansible"]
    for name in re.findall(
        r"`([a-z_]+(?:/[\w.-]+)*/[\w-]+\.(?:py|c|md|yml|json|toml|conf|xml|service))`", page.read_text()
    ):
        assert any((root / name).exists() for root in roots), name


def test_places_that_the_architecture_names_exist() -> None:
    text = (REPOSITORY / "docs/ARCHITECTURE.md").read_text()
    named = re.findall(r"`([a-z_]+(?:/[a-z_]+)*\.py):(\w+)`", text)
    assert len(named) > 20
    for file, name in named:
        source = (REPOSITORY / "dwcp_migrate" / file).read_text()
        assert re.search(rf"\b(?:class|def) {name}\b", source), f"{file}: {name}"
