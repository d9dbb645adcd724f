import pytest

from dwcp_migrate.errors import LimitExceededError, RemoteProtocolError
from dwcp_migrate.hypervisor.hook import LINE_BYTES_MAX, Announce, Heard, decode_announcement, encode_answer

UUID = "0123abcd-0000-1111-2222-333344445555"
LINE = b'{"operation": "migrate begin", "name": "vm", "uuid": "' + UUID.encode() + b'"}\n'


def test_an_announcement_is_read() -> None:
    assert decode_announcement(LINE) == Announce("migrate begin", "vm", UUID)


def test_a_line_at_the_limit_is_read_and_one_longer_is_refused() -> None:
    assert decode_announcement(LINE.rjust(LINE_BYTES_MAX)).uuid == UUID
    with pytest.raises(LimitExceededError):
        decode_announcement(LINE.rjust(LINE_BYTES_MAX + 1))


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"garbage\n",
        b"[]\n",
        b"\xff\xfe\n",
        LINE.replace(b"0123abcd", b"0123ABCD"),
        LINE.replace(b'"vm"', b'""'),
        LINE.replace(b'"vm"', b'"' + b"v" * 257 + b'"'),
        LINE.replace(UUID.encode(), b"../../etc/passwd"),
    ],
)
def test_anything_else_is_refused(line: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_announcement(line)


def test_the_answer_is_one_line() -> None:
    assert encode_answer(Heard(ok=True)) == b'{"ok":true,"error":""}\n'
