"""Boot files of the lab's guests: the Debian cloud kernel and initramfs archives, made once a machine.

The rule here: the images are the same bytes on all hosts and never change under a running guest; a changed program
gives another cache entry.
"""

import lzma
import shutil
from importlib import resources
from pathlib import Path
from typing import Final

from dwcp_migrate.lab.commands import run_program
from dwcp_migrate.lab.images import cache
from dwcp_migrate.lab.images.cpio import Archive
from dwcp_migrate.lab.images.tree import Tree, obtain_tree, recipe_digest

KERNEL: Final = "vmlinuz"
PAGES: Final = "pages.cpio"
"""Guest whose memory is filled, changed and checked by guest/pages.c."""

PROGRAMS: Final = "programs.cpio"
"""Guest whose memory is filled by real programs, guest/programs.py."""

USERLAND: Final = (
    "usr/bin",
    "usr/sbin",
    "usr/lib/x86_64-linux-gnu",
    "usr/lib/python3.13",
    "usr/lib64",
    "etc/alternatives",
)
"""Part of the tree that the programs' guest gets; the same paths are its page cache."""

LEFT_OUT: Final = ("qemu", "libvirt", "virt")
"""Parts of names of what no guest needs: half of the bytes."""

FORMAT: Final = "2"
"""Changes whenever this module puts something else into the images."""


def directory() -> Path:
    """Return the directory of the images, making them first where this machine has none.

    Raises:
        LabError: no C compiler, or the tree cannot be built.
    """
    sources = resources.files("dwcp_migrate.lab").joinpath("guest")
    pages, programs = sources.joinpath("pages.c").read_bytes(), sources.joinpath("programs.py").read_bytes()

    def build(path: Path) -> None:
        made = obtain_tree()
        shutil.copyfile(made.kernel, path / KERNEL)
        _pages(path, made, pages)
        _programs(path, made, programs)

    return cache.entry("guest", cache.digest(FORMAT, recipe_digest(), pages, programs), build)


def _pages(path: Path, made: Tree, source: bytes) -> None:
    program = path / "pages"
    (path / "pages.c").write_bytes(source)
    run_program(["cc", "-O2", "-Wall", "-static", "-o", str(program), str(path / "pages.c")])
    with (path / PAGES).open("wb") as file, Archive(file) as archive:
        archive.add_file("init", program.read_bytes(), mode=0o755)
        for module in sorted(made.modules.iterdir()):
            archive.add_file(module.name.removesuffix(".xz"), lzma.decompress(module.read_bytes()))


def _programs(path: Path, made: Tree, init: bytes) -> None:
    with (path / PROGRAMS).open("wb") as file, Archive(file) as archive:
        for name in ("dev", "proc", "sys", "tmp", "etc", "usr", "usr/lib"):
            archive.add_directory(name)
        for name in ("bin", "sbin", "lib", "lib64"):
            archive.add_symlink(name, f"usr/{name}")
        archive.add_file("init", init, mode=0o755)
        for part in USERLAND:
            for entry in [made.root / part, *sorted((made.root / part).rglob("*"))]:
                name = str(entry.relative_to(made.root))
                if not any(word in name for word in LEFT_OUT):
                    archive.add_path(name, entry)
