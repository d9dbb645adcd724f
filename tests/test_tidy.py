"""The style that a machine can hold: maps of packages, sizes, names, and words that need a second reading."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Final

import pytest

REPOSITORY: Final = Path(__file__).parents[1]
SOURCES: Final = sorted([*(REPOSITORY / "dwcp_migrate").rglob("*.py"), *(REPOSITORY / "bench").rglob("*.py")])
TESTS: Final = sorted((REPOSITORY / "tests").rglob("*.py"))
PACKAGES: Final = [path for path in SOURCES if path.name == "__init__.py"]

MODULE_LINES_MAX: Final = 500
FUNCTION_LINES_MAX: Final = 60
MODULES_IN_FOLDER_MAX: Final = 16

LONG_FUNCTIONS: Final = {"ruin_and_recreate", "block"}
"""Kernels: every call of a compiled function costs, most of all a nested one."""

SHARED_NAMES: Final = {
    "Closed": "a message of the control protocol, an event of a link",
    "HostRecord": "a host in the cluster state, a host of a lab",
    "Release": "an operation of the PBFT tickets, a command of the cluster state",
    "Runs": "a message of the control protocol, runs of pages",
    "Ticket": "the two engines of authorisation",
}
"""Class names that two packages define, and why; the list may only become shorter."""

QUESTION: Final = re.compile(r"(What|Who|Whose|Whether|How|When|Where|Which|Why)\b")
RIDDLE: Final = re.compile(r"(What|Who|Whose|How|When|Where|Which|Why)\b")
"""As `QUESTION`, without "Whether": that is how the docstring of a truth value begins."""

PLACEHOLDER: Final = re.compile(r"\b(To be writte[n]|TOD[O]|FIXM[E]|XX[X])\b")
"""The brackets keep this line itself from being one."""


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def name_of(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def head(path: Path) -> str:
    return ast.get_docstring(parsed(path)) or ""


def modules_of(package: Path) -> list[str]:
    folder = package.parent
    return sorted(
        [path.stem for path in folder.glob("*.py") if path.stem not in {"__init__", "__main__"}]
        + [path.parent.name for path in folder.glob("*/__init__.py")]
    )


@pytest.mark.parametrize("package", PACKAGES, ids=name_of)
def test_package_docstring_names_each_of_its_modules(package: Path) -> None:
    words = set(re.findall(r"\w+", head(package)))
    assert [module for module in modules_of(package) if module not in words] == []


def test_module_head_names_the_thing_instead_of_asking_a_question() -> None:
    assert [name_of(path) for path in SOURCES if QUESTION.match(head(path)) or not head(path)] == []


def test_no_placeholder_is_left_in_the_sources() -> None:
    assert [name_of(path) for path in SOURCES if PLACEHOLDER.search(path.read_text())] == []


def test_module_fits_in_its_limit() -> None:
    lengths = {name_of(path): len(path.read_text().splitlines()) for path in (*SOURCES, *TESTS)}
    assert {name: lines for name, lines in lengths.items() if lines > MODULE_LINES_MAX} == {}


def test_function_fits_in_its_limit() -> None:
    long = {
        f"{name_of(path)}:{node.name}": node.end_lineno - node.lineno + 1
        for path in SOURCES
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.name not in LONG_FUNCTIONS
    }
    assert {name: lines for name, lines in long.items() if lines > FUNCTION_LINES_MAX} == {}


def test_folder_holds_few_modules() -> None:
    counts = {name_of(package.parent): len([*package.parent.glob("*.py")]) - 1 for package in PACKAGES}
    assert {name: count for name, count in counts.items() if count > MODULES_IN_FOLDER_MAX} == {}


def test_class_name_is_unique_over_packages() -> None:
    homes: dict[str, set[Path]] = defaultdict(set)
    for path in SOURCES:
        if not path.is_relative_to(REPOSITORY / "dwcp_migrate"):
            continue
        for node in parsed(path).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].add(path.parent)
    doubled = {name for name, folders in homes.items() if len(folders) > 1}
    assert sorted(doubled - SHARED_NAMES.keys()) == []
    assert sorted(SHARED_NAMES.keys() - doubled) == [], "unique by now: take it off the list"


def test_tasks_are_begun_where_their_failures_are_seen() -> None:
    def begins(path: Path) -> bool:
        calls = (node.attr for node in ast.walk(parsed(path)) if isinstance(node, ast.Attribute))
        return not {"create_task", "ensure_future"}.isdisjoint(calls)

    ours = [path for path in SOURCES if path.is_relative_to(REPOSITORY / "dwcp_migrate")]
    assert [name_of(path) for path in ours if begins(path)] == ["dwcp_migrate/tasks.py"]


def defaults_of(node: ast.AST) -> list[ast.expr | None]:
    """Defaults of a function's parameters or of a class's attributes."""
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            return [*node.args.defaults, *node.args.kw_defaults]
        case ast.ClassDef():
            return [one.value for one in node.body if isinstance(one, ast.AnnAssign)]
    return []


def test_no_callback_does_nothing_by_default() -> None:
    """A caller that leaves one out would not notice that nobody hears."""
    found = [
        f"{name_of(path)}:{default.lineno}"
        for path in SOURCES
        for node in ast.walk(parsed(path))
        for default in defaults_of(node)
        if isinstance(default, ast.Lambda) and isinstance(default.body, ast.Constant)
    ]
    assert found == []


def docstrings(path: Path) -> list[str]:
    """Docstrings of classes, functions and constants."""
    found = []
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found.append(ast.get_docstring(node) or "")
        if isinstance(node, ast.Module | ast.ClassDef):
            found += [
                after.value.value
                for before, after in pairwise(node.body)
                if isinstance(before, ast.Assign | ast.AnnAssign)
                and isinstance(after, ast.Expr)
                and isinstance(after.value, ast.Constant)
                and isinstance(after.value.value, str)
            ]
    return found


def test_docstrings_name_the_thing_instead_of_asking_a_question() -> None:
    ours = [path for path in SOURCES if path.is_relative_to(REPOSITORY / "dwcp_migrate")]
    riddles = [(name_of(path), text) for path in ours for text in docstrings(path) if RIDDLE.match(text)]
    assert riddles == []


def public_functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Public functions of a module, and public methods of its public classes."""
    bodies = [parsed(path).body]
    bodies += [node.body for node in parsed(path).body if isinstance(node, ast.ClassDef) and node.name[0] != "_"]
    return [
        node
        for body in bodies
        for node in body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_")
    ]


def test_functions_that_cross_packages_are_verb_and_object() -> None:
    homes = {
        ".".join(path.relative_to(REPOSITORY).with_suffix("").parts): path
        for path in SOURCES
        if path.is_relative_to(REPOSITORY / "dwcp_migrate")
    }
    crossing = {
        (node.module, alias.name)
        for path in homes.values()
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.ImportFrom) and node.module in homes and homes[node.module].parent != path.parent
        for alias in node.names
        if "_" not in alias.name
    }
    defined = {
        (module, node.name)
        for module, path in homes.items()
        for node in parsed(path).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    one_word = sorted(crossing & defined)
    assert one_word == []


def calls_of_click(nodes: Iterable[ast.AST], names: set[str]) -> list[ast.Call]:
    """Calls such as `click.option(...)` or `command.command(...)`."""
    return [
        node
        for node in nodes
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in names
    ]


def is_command(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether click calls a function: its docstring is the help text, and its parameters have help texts."""
    return bool(calls_of_click(node.decorator_list, {"command", "group"}))


def test_options_of_commands_have_help_and_arguments_stand_in_the_text() -> None:
    silent = []
    for path in SOURCES:
        silent += [
            f"{name_of(path)}:{call.lineno}"
            for call in calls_of_click(ast.walk(parsed(path)), {"option"})
            if not {"help", "hidden"} & {keyword.arg for keyword in call.keywords}
        ]
        for node in ast.walk(parsed(path)):
            if not isinstance(node, ast.FunctionDef) or not is_command(node):
                continue
            text = ast.get_docstring(node) or ""
            for call in calls_of_click(node.decorator_list, {"argument"}):
                given = next((keyword.value for keyword in call.keywords if keyword.arg == "metavar"), call.args[0])
                assert isinstance(given, ast.Constant)
                words = re.findall(r"\w+", str(given.value).upper())
                silent += [f"{name_of(path)}:{call.lineno}" for word in words if word not in text]
    assert silent == []


def test_public_functions_of_several_parameters_explain_them() -> None:
    def is_unexplained(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
        every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        text = ast.get_docstring(node) or ""
        several = len([one for one in every if one.arg not in {"self", "cls"}]) > 1
        return several and "Args:" not in text and not text.startswith("See ") and not is_command(node)

    bare = [
        f"{name_of(path)}:{node.name}"
        for path in SOURCES
        if path.is_relative_to(REPOSITORY / "dwcp_migrate")
        for node in public_functions(path)
        if is_unexplained(node)
    ]
    assert bare == []
