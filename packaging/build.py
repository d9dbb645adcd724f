"""Builder of the packages: wheel, sdist, wheelhouse, SBOM, .deb and .rpm from this checkout into `dist/`.

    .venv/bin/python packaging/build.py [--into dist] [--version X] [--offline]

A package carries the wheels of all dependencies, each held to the hash in `requirements.lock`, for the Pythons of the
distributions that it is for; its installation makes a virtual environment below /opt/dwcp-migrate from them, without
any index. libvirt's binding comes from the distribution, as its library does.
"""

import argparse
import gzip
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
from email.utils import formatdate
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
REPOSITORY: Final = HERE.parent
LOCK: Final = HERE / "requirements.lock"
NAME: Final = "dwcp-migrate"
MAINTAINER: Final = "dwcp-migrate maintainers <maintainers@users.noreply.dwcp-migrate.org>"

PYTHONS: Final = ("3.11", "3.13")
"""Of Debian 12 and 13."""
PLATFORMS: Final = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
FROM_SOURCE: Final = "pysyncobj"
"""Published as source only; it is plain Python, so one wheel fits every Python."""

LAYOUT: Final = {
    "packaging/common/dwcp-migrate": ("usr/bin/dwcp-migrate", 0o755),
    "packaging/common/install-release": ("usr/lib/dwcp-migrate/install-release", 0o755),
    "packaging/common/agent.toml": ("etc/dwcp-migrate/agent.toml", 0o644),
    "systemd/dwcp-migrate.service": ("usr/lib/systemd/system/dwcp-migrate.service", 0o644),
    "systemd/90-dwcp-migrate.conf": ("usr/lib/sysctl.d/90-dwcp-migrate.conf", 0o644),
    "systemd/firewalld-dwcp-migrate.xml": ("usr/lib/firewalld/services/dwcp-migrate.xml", 0o644),
    "hooks/qemu.d/50-dwcp-migrate": ("etc/libvirt/hooks/qemu.d/50-dwcp-migrate", 0o755),
    "monitoring/alerts.yml": ("usr/share/dwcp-migrate/monitoring/alerts.yml", 0o644),
    "monitoring/recording.yml": ("usr/share/dwcp-migrate/monitoring/recording.yml", 0o644),
    "monitoring/dashboard.json": ("usr/share/dwcp-migrate/monitoring/dashboard.json", 0o644),
}
"""File of the checkout, and its place and mode on the host."""

COMPLETIONS: Final = {
    "bash": "usr/share/bash-completion/completions/dwcp-migrate",
    "zsh": "usr/share/zsh/vendor-completions/_dwcp-migrate",
    "fish": "usr/share/fish/vendor_completions.d/dwcp-migrate.fish",
}


def run(*command: str, cwd: Path = REPOSITORY, env: dict[str, str] | None = None) -> str:
    """Run a program and return what it printed; its errors go to our standard error."""
    done = subprocess.run(command, cwd=cwd, env=env, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout


def pip(*arguments: str) -> None:
    """Run this Python's pip, quietly."""
    run(sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments)


def distribution(work: Path, into: Path, version: str) -> Path:
    """Build sdist and wheel of the checkout under a version; returns the wheel."""
    source = work / "source"
    shutil.rmtree(source, ignore_errors=True)
    tracked = run("git", "ls-files", "-z").split("\0")
    for name in filter(None, tracked):
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(REPOSITORY / name, target, follow_symlinks=False)
    package = source / "dwcp_migrate/__init__.py"
    package.write_text(re.sub(r'(?m)^(__version__\b.*= )".*"$', rf'\g<1>"{version}"', package.read_text()))
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(into), str(source))
    return next(into.glob(f"dwcp_migrate-{version}-*.whl"))


def wheelhouse(work: Path) -> list[Path]:
    """Download the locked wheels of all dependencies for all Pythons, held to their hashes."""
    directory = work / "wheels"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    text = LOCK.read_text()
    blocks = re.findall(r"(?m)^(?=[a-z0-9])[^\n]*(?:\n[ #][^\n]*)*\n", text)
    source = [block for block in blocks if block.startswith(FROM_SOURCE)]
    binary = [block for block in blocks if not block.startswith(FROM_SOURCE)]
    (work / "binary.txt").write_text("".join(binary))
    (work / "source.txt").write_text("".join(source))
    for python in PYTHONS:
        # pip judges markers by the Python that runs it, so those of the target are worked out beforehand.
        chosen = [block for block in binary if _holds(block, python)]
        lines = [block.replace(_marker(block), "") for block in chosen]
        (work / f"python-{python}.txt").write_text("".join(lines))
        options = ["--only-binary=:all:", f"--python-version={python}", *(f"--platform={one}" for one in PLATFORMS)]
        where = ["--no-deps", "--require-hashes", f"--dest={directory}"]
        pip("download", *where, *options, "--requirement", str(work / f"python-{python}.txt"))
    pip("wheel", "--no-deps", "--require-hashes", f"--wheel-dir={directory}", "--requirement", str(work / "source.txt"))
    return sorted(directory.glob("*.whl"))


def _marker(block: str) -> str:
    found = re.search(r" ;[^\\\n]*", block)
    return found[0] if found else ""


def _holds(block: str, python: str) -> bool:
    """Evaluate a requirement's marker for a CPython of Linux."""
    from packaging.markers import Marker  # the library of that name; this folder is no package

    text = _marker(block).strip(" ;")
    environment = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux"}
    return not text or Marker(text).evaluate(environment)


def requirements(wheels: list[Path]) -> str:
    """Name each wheel with its hash, so that the host's pip installs exactly these."""
    found: dict[tuple[str, str], list[str]] = {}
    for wheel in wheels:
        name, version = wheel.name.split("-")[:2]
        found.setdefault((name, version), []).append(hashlib.sha256(wheel.read_bytes()).hexdigest())
    doubled = {name for name, _ in found if sum(one == name for one, _ in found) > 1}
    lines = []
    for (name, version), digests in sorted(found.items()):
        marker = ""
        if name in doubled:  # a version for each Python
            tags = {wheel.name.split("-")[2] for wheel in wheels if wheel.name.startswith(f"{name}-{version}-")}
            (tag,) = tags
            marker = f' ; python_version == "{tag[2]}.{tag[3:]}"'
        hashes = " ".join(f"--hash=sha256:{digest}" for digest in digests)
        lines.append(f"{name}=={version}{marker} {hashes}\n")
    return "".join(lines)


def stage(root: Path, wheels: list[Path], version: str) -> None:
    """Lay out what every package installs below `root`."""
    shutil.rmtree(root, ignore_errors=True)
    for source, (target, mode) in LAYOUT.items():
        _install(REPOSITORY / source, root / target, mode)
    library = root / "usr/lib/dwcp-migrate"
    for wheel in wheels:
        _install(wheel, library / "wheels" / wheel.name, 0o644)
    (library / "requirements.txt").write_text(requirements(wheels))
    (library / "version").write_text(f"{version}\n")
    for shell, target in COMPLETIONS.items():
        environment = {**os.environ, "_DWCP_MIGRATE_COMPLETE": f"{shell}_source"}
        script = run(str(Path(sys.executable).with_name(NAME)), env=environment)
        (root / target).parent.mkdir(parents=True, exist_ok=True)
        (root / target).write_text(script)
    _man_pages(root / "usr/share/man/man1", version)
    documents = root / f"usr/share/doc/{NAME}"
    documents.mkdir(parents=True)
    for page in (HERE.parent / "docs").glob("*.md"):  # alerts name their sections there
        (documents / page.name).write_text(page.read_text())
    (documents / "copyright").write_text((HERE / "debian/copyright").read_text())
    for path in root.rglob("*"):
        if path.is_dir():
            path.chmod(0o755)
        elif path.stat().st_mode & 0o111 == 0:
            path.chmod(0o644)


def _install(source: Path, target: Path, mode: int) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(mode)


def _man_pages(directory: Path, version: str) -> None:
    """Write a page for each command, as the code describes it."""
    import click
    from click_man.core import write_man_pages

    from dwcp_migrate.cli import root as lazy

    context = click.Context(lazy)
    commands = {name: lazy.get_command(context, name) for name in lazy.list_commands(context)}
    eager = click.Group(NAME, commands={name: one for name, one in commands.items() if one}, help=lazy.help)
    directory.mkdir(parents=True)
    write_man_pages(NAME, eager, version=version, target_dir=str(directory))
    for page in sorted(directory.glob("*.1")):
        page.write_text(re.sub(r"(?m)^(?=\.\.)", r"\\&", page.read_text()))  # no macro, but an ellipsis
        _compress(page)


def _compress(path: Path) -> None:
    with path.with_name(f"{path.name}.gz").open("wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as file:
        file.write(path.read_bytes())
    path.unlink()


def deb(work: Path, root: Path, into: Path, version: str) -> Path:
    """Build the .deb; needs dpkg-deb."""
    tree = work / "deb"
    shutil.rmtree(tree, ignore_errors=True)
    shutil.copytree(root, tree)
    changelog = tree / f"usr/share/doc/{NAME}/changelog"
    entry = f"{NAME} ({version}) unstable; urgency=medium\n\n  * See CHANGELOG.md of the project.\n\n"
    moment = int(os.environ.get("SOURCE_DATE_EPOCH", time.time()))
    changelog.write_text(f"{entry} -- {MAINTAINER}  {formatdate(moment, localtime=False)}\n")
    _compress(changelog)
    overrides = tree / f"usr/share/lintian/overrides/{NAME}"
    _install(HERE / "debian/lintian-overrides", overrides, 0o644)
    control = tree / "DEBIAN"
    control.mkdir()
    size_kib = sum(path.stat().st_size for path in tree.rglob("*") if path.is_file()) // 1024
    fields = (HERE / "debian/control").read_text().format(version=version, size=size_kib, maintainer=MAINTAINER)
    (control / "control").write_text(fields)
    etc = [f"/{path.relative_to(tree)}" for path in sorted((tree / "etc").rglob("*")) if path.is_file()]
    (control / "conffiles").write_text("".join(f"{path}\n" for path in etc))
    for script in ("postinst", "prerm", "postrm"):
        _install(HERE / "debian" / script, control / script, 0o755)
    sums = "".join(
        f"{hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()}  {path.relative_to(tree)}\n"
        for path in sorted(tree.rglob("*"))
        if path.is_file() and "DEBIAN" not in path.parts and f"/{path.relative_to(tree)}" not in etc
    )
    (control / "md5sums").write_text(sums)
    control.chmod(0o755)
    package = into / f"{NAME}_{version}_amd64.deb"
    run("dpkg-deb", "--root-owner-group", "-Zxz", "--build", str(tree), str(package))
    return package


def rpm(work: Path, root: Path, into: Path, version: str) -> Path:
    """Build the .rpm from the same tree; needs rpmbuild."""
    top = work / "rpm"
    shutil.rmtree(top, ignore_errors=True)
    top.mkdir()
    spec = (HERE / "rpm/dwcp-migrate.spec").read_text()
    (top / "dwcp-migrate.spec").write_text(spec.replace("@VERSION@", version).replace("@TREE@", str(root)))
    define = ["--define", f"_topdir {top}", "--define", "_build_id_links none"]
    run("rpmbuild", "--quiet", "-bb", "--target", "x86_64", *define, str(top / "dwcp-migrate.spec"))
    built = next((top / "RPMS").rglob("*.rpm"))
    return Path(shutil.copy2(built, into / built.name))


def bill_of_materials(into: Path, version: str) -> Path:
    """Write the SBOM (CycloneDX) of the locked dependencies."""
    path = into / f"{NAME}-{version}.cdx.json"
    command = [str(Path(sys.executable).with_name("cyclonedx-py")), "requirements", str(LOCK)]
    text = run(*command, "--output-reproducible", "--of", "JSON")
    found = json.loads(text)
    found["metadata"] = {"component": {"type": "application", "name": NAME, "version": version}}
    path.write_text(json.dumps(found, indent=2) + "\n")
    return path


def main() -> None:
    """Build everything, and say where it lies."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--into", type=Path, default=REPOSITORY / "dist")
    parser.add_argument("--version", help="another version than the checkout's, for tests of upgrades")
    parser.add_argument("--offline", action="store_true", help="take the dependencies' wheels that an earlier run left")
    chosen = parser.parse_args()
    sys.path.insert(0, str(REPOSITORY))
    from dwcp_migrate import __version__

    version = chosen.version or __version__
    into, work = chosen.into.resolve(), REPOSITORY / "build/packages"
    into.mkdir(parents=True, exist_ok=True)
    work.mkdir(parents=True, exist_ok=True)
    wheel = distribution(work, into, version)
    kept = sorted((work / "wheels").glob("*.whl")) if chosen.offline else wheelhouse(work)
    wheels = [*kept, wheel]
    archive = into / f"{NAME}-{version}-wheels.tar"
    with tarfile.open(archive, "w") as tar:
        for one in wheels:
            tar.add(one, one.name)
    stage(work / "tree", wheels, version)
    made = [wheel, archive, deb(work, work / "tree", into, version), bill_of_materials(into, version)]
    if shutil.which("rpmbuild"):
        made.append(rpm(work, work / "tree", into, version))
    print("\n".join(str(path) for path in made))


if __name__ == "__main__":
    main()
