"""One netlink socket to nftables: whole transactions, and tables that die with the socket.

A batch takes effect as a whole or not at all, and every table is made with the `owner` flag (kernel 5.12), so that the
kernel removes it when this socket closes, however the process ends; nobody else can change or flush it.

    batch   = BEGIN, one message a change, END          sent in one datagram
    answers = an error for each change that failed, and one (or 0) for the last change

Numbers are those of linux/netfilter/nf_tables.h.
"""

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Self

from dwcp_migrate.errors import HypervisorError
from dwcp_migrate.hypervisor.netlink.attributes import attribute, attributes, find, nested, spans, text, u32
from dwcp_migrate.units import MIB

ANSWER_TIMEOUT_S: Final = 2.0
"""The kernel answers within microseconds; a longer wait means that the answer was lost."""

RECEIVE_BYTES: Final = 256 * 1024
"""Netlink truncates what does not fit; dumps come in datagrams of at most 32 KiB."""

SEND_BUFFER_BYTES: Final = 4 * MIB
"""A transaction has to fit as a whole: an element of a set takes 28 bytes at most. The system's default is 208 KiB."""

ELEMENTS_A_MESSAGE: Final = 2048
"""The attribute that holds them has a length of 16 bits."""

NFPROTO_IPV4: Final = 2
NFPROTO_IPV6: Final = 10

_NETLINK_NETFILTER: Final = 12
_NLMSG_ERROR: Final = 2
_NLMSG_DONE: Final = 3
_REQUEST: Final = 0x1
_ACK: Final = 0x4
_DUMP: Final = 0x300
_CREATE: Final = 0x400
_APPEND: Final = 0x800

_SUBSYSTEM: Final = 10
_BATCH_BEGIN: Final = 0x10
_BATCH_END: Final = 0x11
_NEW_TABLE: Final = 0
_NEW_CHAIN: Final = 3
_NEW_RULE: Final = 6
_DELETE_RULE: Final = 8
_NEW_SET: Final = 9
_NEW_ELEMENTS: Final = 12
_GET_ELEMENTS: Final = 13
_DELETE_ELEMENTS: Final = 14

_TABLE_F_OWNER: Final = 2
_HOOK_OUTPUT: Final = 3
_PRIORITY_DSTNAT: Final = 0xFFFFFFFF - 99  # -100
_SET_F_TIMEOUT: Final = 0x10
_SET_TIMEOUT: Final = 11
_SET_EXPRESSION: Final = 17
_ELEMENTS: Final = 3
_ELEMENT_KEY: Final = 1
_ELEMENT_EXPRESSION: Final = 7
_EXPRESSION_DATA: Final = 2
_COUNTER_BYTES: Final = 1
_COUNTER_PACKETS: Final = 2

_SO_SNDBUFFORCE: Final = 32
_HEADER: Final = struct.Struct("=IHHII")
_NFGENMSG: Final = struct.Struct("!BBH")


@dataclass(frozen=True, slots=True)
class TableChange:
    """One message: its type with the subsystem, its flags, its family, and its attributes."""

    kind: int
    flags: int
    family: int
    body: bytes
    resource: int = 0


class Element(NamedTuple):
    """An element of a set with a counter."""

    key: bytes
    packets: int
    bytes: int


DUMPS_MAX: Final = 5
"""Of one set. A large one that was just filled is still being spread over a larger table: the kernel then lists some
elements twice and leaves others out, without a word."""


class Nftables:
    """A netlink socket to nftables in the network namespace of the thread that makes it.

    Raises:
        HypervisorError: no such socket: a kernel without nftables, or no right to it.
    """

    def __init__(self) -> None:
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
            self._socket.bind((0, 0))
        except OSError as error:
            raise HypervisorError(f"no netlink socket to nftables: {error.strerror}") from error
        with contextlib.suppress(OSError):  # without CAP_NET_ADMIN nothing here works anyway, and it says so
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, SEND_BUFFER_BYTES)
        self._socket.settimeout(ANSWER_TIMEOUT_S)
        self._sequence = int.from_bytes(os.urandom(2))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fileno(self) -> int:
        """The socket's descriptor; the tables stay while any process holds a copy of it."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the socket; the kernel removes the tables that it owns, once no copy of it is left."""
        self._socket.close()

    def commit(self, changes: Sequence[TableChange]) -> None:
        """Apply all changes as one transaction; none is fine.

        Raises:
            HypervisorError: the kernel refused one, so none took effect.
        """
        if not changes:
            return
        data = [self._encode(_bracket(_BATCH_BEGIN), 0)]
        begin = self._sequence
        data += [self._encode(change, 0) for change in changes[:-1]]
        data.append(self._encode(changes[-1], _ACK))
        last = self._sequence
        data.append(self._encode(_bracket(_BATCH_END), 0))
        self._send(b"".join(data))
        refusals = [code for code in self._errors(begin, last) if code]
        if refusals:
            raise _refused(refusals[0])

    def elements(self, family: int, table: str, name: str) -> list[Element]:
        """Read the elements of a set with their counters.

        Args:
            family: of the table.
            table: its name.
            name: of the set.

        Returns:
            An empty list where there is no such set.

        Raises:
            HypervisorError: the kernel refused.
        """
        request = TableChange(_kind(_GET_ELEMENTS), _DUMP, family, text(1, table) + text(2, name))
        found: dict[bytes, Element] = {}
        for _ in range(DUMPS_MAX):
            listed = self._dump(request)
            found = {element.key: element for element in listed}
            if len(found) == len(listed):
                break
        return list(found.values())

    def _dump(self, request: TableChange) -> list[Element]:
        """List the elements once. Raises as `elements`."""
        data = self._encode(request, 0)
        sequence = self._sequence
        self._send(data)
        found: list[Element] = []
        for kind, got, body in self._messages():
            if got != sequence:
                continue
            if kind == _NLMSG_DONE:
                return found
            if kind == _NLMSG_ERROR:
                code = -struct.unpack_from("=i", body, _HEADER.size)[0]
                if code in {0, errno.ENOENT}:
                    return found
                raise _refused(code)
            listed = attributes(body[_HEADER.size + _NFGENMSG.size :]).get(_ELEMENTS, b"")
            found += _elements_in(listed)
        raise AssertionError("unreachable")

    def _encode(self, change: TableChange, flags: int) -> bytes:
        self._sequence += 1
        length = _HEADER.size + _NFGENMSG.size + len(change.body)
        header = _HEADER.pack(length, change.kind, _REQUEST | change.flags | flags, self._sequence, 0)
        return header + _NFGENMSG.pack(change.family, 0, change.resource) + change.body

    def _send(self, data: bytes) -> None:
        try:
            self._socket.send(data)
        except OSError as error:
            raise HypervisorError(f"nftables: {error.strerror}") from error

    def _errors(self, begin: int, last: int) -> Iterator[int]:
        """Yield the errors of a transaction, 0 for its last change: that one always answers, others when they fail."""
        for kind, sequence, body in self._messages():
            if kind != _NLMSG_ERROR or not begin <= sequence <= last + 1:
                continue
            yield -struct.unpack_from("=i", body, _HEADER.size)[0]
            if sequence in {begin, last, last + 1}:  # the whole batch was refused, or this was its last answer
                return

    def _messages(self) -> Iterator[tuple[int, int, bytes]]:
        """Yield (type, sequence number, whole message) of all that arrives."""
        while True:
            try:
                data = self._socket.recv(RECEIVE_BYTES)
            except OSError as error:
                raise HypervisorError(f"nftables does not answer: {error}") from error
            while len(data) >= _HEADER.size:
                length, kind, _, sequence, _ = _HEADER.unpack_from(data)
                if length < _HEADER.size:
                    break
                yield kind, sequence, data[:length]
                data = data[(length + 3) & ~3 :]


def _elements_in(listed: bytes) -> list[Element]:
    """Read a list of elements.

    Those of one set are laid out alike, so that the places of the first one's key and counter hold for all: ten
    thousand are read at each scrape of the metrics. Where their lengths differ, each is looked through.
    """
    starts = [(start, end) for _, start, end in spans(listed, 0, len(listed))]
    if not starts:
        return []
    lengths = {end - start for start, end in starts}
    if len(lengths) > 1:
        return [_element(listed, _places(listed, span)) for span in starts]
    places = _places(listed, starts[0])
    first = starts[0][0]
    moved = [tuple(at - first for at in place) for place in places]
    (k0, k1), (p0, p1), (b0, b1) = moved
    number = int.from_bytes
    return [
        Element(listed[at + k0 : at + k1], number(listed[at + p0 : at + p1]), number(listed[at + b0 : at + b1]))
        for at, _ in starts
    ]


def _places(listed: bytes, element: tuple[int, int]) -> list[tuple[int, int]]:
    """Places of an element's key, its count of packets and that of bytes; the last two may be empty."""
    counter = find(listed, element, _ELEMENT_EXPRESSION, _EXPRESSION_DATA)
    none = (element[0], element[0])
    found = [find(listed, element, _ELEMENT_KEY, 1)]
    found += [counter and find(listed, counter, kind) for kind in (_COUNTER_PACKETS, _COUNTER_BYTES)]
    return [place or none for place in found]


def _element(listed: bytes, places: Sequence[tuple[int, int]]) -> Element:
    key, packets, size = (listed[start:end] for start, end in places)
    return Element(key, int.from_bytes(packets), int.from_bytes(size))


def _refused(code: int) -> HypervisorError:
    hint = "run the agent as root or with CAP_NET_ADMIN" if code in {errno.EPERM, errno.EACCES} else ""
    if code in {errno.EOPNOTSUPP, errno.EINVAL}:
        hint = "tables with an owner need Linux 5.12 or later"
    return HypervisorError(f"nftables refused: {os.strerror(code)}", hint=hint)


def _kind(message: int) -> int:
    return (_SUBSYSTEM << 8) | message


def _bracket(kind: int) -> TableChange:
    return TableChange(kind, 0, 0, b"", resource=_SUBSYSTEM)


def owned_table(family: int, name: str) -> TableChange:
    """Add a table that dies with the socket that adds it.

    Args:
        family: `NFPROTO_IPV4` or `NFPROTO_IPV6`, as for all changes below.
        name: of the table.
    """
    return TableChange(_kind(_NEW_TABLE), _CREATE, family, text(1, name) + u32(2, _TABLE_F_OWNER))


def drop_rules(family: int, table: str, chain: str) -> TableChange:
    """Delete all rules of a chain.

    Args:
        family: of the table.
        table: its name.
        chain: its name.
    """
    return TableChange(_kind(_DELETE_RULE), 0, family, text(1, table) + text(2, chain))


def nat_output_chain(family: int, table: str, name: str) -> TableChange:
    """Add the chain that sees connections which this host opens, before they are routed.

    Args:
        family: of the table.
        table: its name.
        name: of the chain.
    """
    hook = nested(4, u32(1, _HOOK_OUTPUT), u32(2, _PRIORITY_DSTNAT))
    return TableChange(_kind(_NEW_CHAIN), _CREATE, family, text(1, table) + text(3, name) + hook + text(7, "nat"))


def append_rule(family: int, table: str, chain: str, expressions: Sequence[bytes]) -> TableChange:
    """Append a rule to a chain.

    Args:
        family: of the table.
        table: its name.
        chain: its name.
        expressions: in order, see `expressions`; the first that does not hold ends the rule.
    """
    body = text(1, table) + text(2, chain) + nested(4, *expressions)
    return TableChange(_kind(_NEW_RULE), _CREATE | _APPEND, family, body)


def named_set(
    family: int, table: str, name: str, key: tuple[int, int], counter: bytes = b"", lifetime_s: float = 0.0
) -> TableChange:
    """Add a set of single values.

    Args:
        family: of its table.
        table: it belongs to.
        name: of it.
        key: nft's number of the data type, so that `nft list` can print it, and the length in bytes.
        counter: the expression that each element gets, if any.
        lifetime_s: how long after it was added an element leaves by itself; 0 keeps it.
    """
    body = [text(1, table), text(2, name), u32(4, key[0]), u32(5, key[1]), u32(10, 1)]
    if lifetime_s:
        milliseconds = round(lifetime_s * 1000).to_bytes(8)
        body += [u32(3, _SET_F_TIMEOUT), attribute(_SET_TIMEOUT, milliseconds)]
    if counter:
        body.append(nested(_SET_EXPRESSION, counter))
    return TableChange(_kind(_NEW_SET), _CREATE, family, b"".join(body))


def add_elements(family: int, table: str, name: str, keys: Sequence[bytes]) -> list[TableChange]:
    """Add values to a set, in as many changes as they need.

    Args:
        family: of the table.
        table: its name.
        name: of the set.
        keys: the values, all of the set's length, a multiple of four bytes.
    """
    return _elements(_kind(_NEW_ELEMENTS), _CREATE, (family, table, name), keys)


def delete_elements(family: int, table: str, name: str, keys: Sequence[bytes]) -> list[TableChange]:
    """Remove values from a set; the kernel refuses the whole transaction where the set lacks one.

    Args:
        family: of the table.
        table: its name.
        name: of the set.
        keys: the values, as for `add_elements`.
    """
    return _elements(_kind(_DELETE_ELEMENTS), 0, (family, table, name), keys)


def flush_set(family: int, table: str, name: str) -> TableChange:
    """Remove all values from a set.

    Args:
        family: of the table.
        table: its name.
        name: of the set.
    """
    return TableChange(_kind(_DELETE_ELEMENTS), 0, family, text(1, table) + text(2, name))


def _elements(kind: int, flags: int, where: tuple[int, str, str], keys: Sequence[bytes]) -> list[TableChange]:
    family, table, name = where
    if not keys:
        return []
    first = nested(1, nested(_ELEMENT_KEY, attribute(1, keys[0])))
    prefix = first[: -len(keys[0])]  # all keys of a set have one length, a multiple of four
    found = []
    for start in range(0, len(keys), ELEMENTS_A_MESSAGE):
        chunk = keys[start : start + ELEMENTS_A_MESSAGE]
        listed = nested(_ELEMENTS, prefix, prefix.join(chunk))
        found.append(TableChange(kind, flags, family, text(1, table) + text(2, name) + listed))
    return found
