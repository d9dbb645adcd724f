import io
from pathlib import Path

from dwcp_migrate.lab.images.cpio import Archive


def read(data: bytes) -> dict[str, tuple[int, bytes]]:
    """A naive reader of the newc format: name to (mode, content)."""
    entries: dict[str, tuple[int, bytes]] = {}
    at = 0
    while True:
        assert data[at : at + 6] == b"070701"
        fields = [int(data[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = data[at + 110 : at + 110 + name_size - 1].decode()
        at += (110 + name_size + 3) // 4 * 4
        if name == "TRAILER!!!":
            return entries
        entries[name] = (mode, data[at : at + size])
        at += (size + 3) // 4 * 4


def test_what_was_added_is_read_back() -> None:
    file = io.BytesIO()
    with Archive(file) as archive:
        archive.add_directory("dev")
        archive.add_file("init", b"12345", mode=0o755)
        archive.add_symlink("bin", "usr/bin")
    assert read(file.getvalue()) == {"dev": (0o40755, b""), "init": (0o100755, b"12345"), "bin": (0o120777, b"usr/bin")}


def test_files_of_the_machine_keep_their_mode_and_links_their_target(tmp_path: Path) -> None:
    (tmp_path / "tool").write_bytes(b"#!")
    (tmp_path / "tool").chmod(0o711)
    (tmp_path / "link").symlink_to("tool")
    file = io.BytesIO()
    with Archive(file) as archive:
        archive.add_path("tool", tmp_path / "tool")
        archive.add_path("link", tmp_path / "link")
    assert read(file.getvalue()) == {"tool": (0o100711, b"#!"), "link": (0o120777, b"tool")}


def test_the_same_input_gives_the_same_bytes() -> None:
    def made() -> bytes:
        file = io.BytesIO()
        with Archive(file) as archive:
            archive.add_file("init", b"x")
        return file.getvalue()

    assert made() == made()
