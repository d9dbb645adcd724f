"""One netlink socket to nftables: whole transactions, and tables that die with the socket.

The rule: a batch takes effect as a whole or not at all, and every table is made with the `owner` flag (kernel 5.12),
so that the kernel removes it when this socket closes, however the process ends; nobody else can change or flush it.

pyroute2 encodes the messages. Its own socket class is not used: it sends each command as a transaction of
its own, and its sockets belong to threads.

    batch   = BEGIN, one message a change, END          sent in one datagram
    answers = an error for each change that failed, and one (or 0) for the last change
"""

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from pyroute2.netlink import (
    NETLINK_NETFILTER,
    NLM_F_ACK,
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
)
from pyroute2.netlink.nfnetlink import NFNL_SUBSYS_NFTABLES, nfgen_msg
from pyroute2.netlink.nfnetlink.nftsocket import (
    NFT_MSG_DELRULE,
    NFT_MSG_GETRULE,
    NFT_MSG_NEWCHAIN,
    NFT_MSG_NEWRULE,
    NFT_MSG_NEWTABLE,
    nft_chain_msg,
    nft_rule_msg,
    nft_table_msg,
)

from dwcp_migrate.errors import HypervisorError
from dwcp_migrate.units import MIB

Attributes = list[tuple[str, Any]]

TABLE_F_OWNER: Final = 2
HOOK_OUTPUT: Final = 3
PRIORITY_DSTNAT: Final = -100
BATCH_BEGIN: Final = 0x10
BATCH_END: Final = 0x11
ANSWER_TIMEOUT_S: Final = 2.0
"""The kernel answers within microseconds; a longer wait means that the answer was lost."""

RECEIVE_BYTES: Final = 256 * 1024
"""Netlink truncates what does not fit; dumps come in datagrams of at most 32 KiB."""

SEND_BUFFER_BYTES: Final = 2 * MIB
"""A rule takes about 600 bytes; a transaction has to fit as a whole. The system's default is 208 KiB."""

_SO_SNDBUFFORCE: Final = 32
_ATTRIBUTE: Final = struct.Struct("=HH")
_ATTRIBUTE_TYPE_MASK: Final = 0x3FFF
_NFGENMSG_BYTES: Final = 4
_RULE_TABLE: Final = 1
_RULE_EXPRESSIONS: Final = 4
_EXPRESSION_NAME: Final = 1
_EXPRESSION_DATA: Final = 2
_HEADER: Final = struct.Struct("=IHHII")


@dataclass(frozen=True, slots=True)
class Expression:
    """One expression of a rule: its name and its attributes by type (linux/netfilter/nf_tables.h)."""

    name: str
    values: dict[int, bytes]


class Nftables:
    """A netlink socket to nftables in the network namespace of the thread that makes it.

    Raises:
        HypervisorError: no such socket: a kernel without nftables, or no right to it.
    """

    def __init__(self) -> None:
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
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
        """The socket's descriptor; whoever holds a copy of it holds the tables up."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the socket; the kernel removes the tables that it owns, once no copy of it is left."""
        self._socket.close()

    def commit(self, changes: Sequence[nfgen_msg]) -> None:
        """Apply all changes as one transaction; none is fine.

        Raises:
            HypervisorError: the kernel refused one, so none took effect.
        """
        if not changes:
            return
        data = self._encode(_bracket(BATCH_BEGIN), 0)
        begin = self._sequence
        for change in changes:
            data += self._encode(change, NLM_F_ACK if change is changes[-1] else 0)
        last = self._sequence
        data += self._encode(_bracket(BATCH_END), 0)
        self._send(data)
        refusals = [code for code in self._errors(begin, last) if code]
        if refusals:
            raise _refused(refusals[0])

    def rules(self, family: int, table: str) -> list[list[Expression]]:
        """Read the expressions of a table's rules, in order; none when there is no such table.

        Raises:
            HypervisorError: the kernel refused.
        """
        request = nft_rule_msg()
        request["attrs"] = [("NFTA_RULE_TABLE", table)]
        data = self._encode(_change(request, family, NFT_MSG_GETRULE, 0), NLM_F_DUMP)
        sequence = self._sequence
        self._send(data)
        found: list[list[Expression]] = []
        for kind, got, body in self._messages():
            if got != sequence:
                continue
            if kind == NLMSG_DONE:
                return found
            if kind == NLMSG_ERROR:
                code = -struct.unpack_from("=i", body, _HEADER.size)[0]
                if code in {0, errno.ENOENT}:
                    return found
                raise _refused(code)
            rule = attributes(body[_HEADER.size + _NFGENMSG_BYTES :])
            if rule.get(_RULE_TABLE, b"").rstrip(b"\0") == table.encode():
                found.append(_expressions(rule.get(_RULE_EXPRESSIONS, b"")))
        raise AssertionError("unreachable")

    def _encode(self, message: nfgen_msg, flags: int) -> bytes:
        self._sequence += 1
        message["header"]["flags"] |= NLM_F_REQUEST | flags
        message["header"]["sequence_number"] = self._sequence
        message.encode()
        return bytes(message.data)

    def _send(self, data: bytes) -> None:
        try:
            self._socket.send(data)
        except OSError as error:
            raise HypervisorError(f"nftables: {error.strerror}") from error

    def _errors(self, begin: int, last: int) -> Iterator[int]:
        """Yield the errors of a transaction, 0 for its last change: that one always answers, others when they fail."""
        for kind, sequence, body in self._messages():
            if kind != NLMSG_ERROR or not begin <= sequence <= last + 1:
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


def attributes(data: bytes) -> dict[int, bytes]:
    """Cut netlink attributes: type to value, the last of a type counts.

    Read by hand because pyroute2 takes 1.6 ms a rule, and metrics read all of them at each scrape.
    """
    return dict(_pairs(data))


def _pairs(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size:
            return
        yield kind & _ATTRIBUTE_TYPE_MASK, data[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3


def _expressions(data: bytes) -> list[Expression]:
    found = []
    for _, element in _pairs(data):
        expression = attributes(element)
        name = expression.get(_EXPRESSION_NAME, b"").rstrip(b"\0").decode()
        found.append(Expression(name, attributes(expression.get(_EXPRESSION_DATA, b""))))
    return found


def _refused(code: int) -> HypervisorError:
    hint = "run the agent as root or with CAP_NET_ADMIN" if code in {errno.EPERM, errno.EACCES} else ""
    if code in {errno.EOPNOTSUPP, errno.EINVAL}:
        hint = "tables with an owner need Linux 5.12 or later"
    return HypervisorError(f"nftables refused: {os.strerror(code)}", hint=hint)


def _bracket(kind: int) -> nfgen_msg:
    message = nfgen_msg()
    message["res_id"] = NFNL_SUBSYS_NFTABLES
    message["header"]["type"] = kind
    message["header"]["flags"] = 0
    return message


def _change(message: nfgen_msg, family: int, kind: int, flags: int) -> nfgen_msg:
    message["header"]["type"] = (NFNL_SUBSYS_NFTABLES << 8) | kind
    message["header"]["flags"] = flags
    message["nfgen_family"] = family
    return message


def owned_table(family: int, name: str) -> nfgen_msg:
    """Add a table that dies with the socket that adds it."""
    message = nft_table_msg()
    message["attrs"] = [("NFTA_TABLE_NAME", name), ("NFTA_TABLE_FLAGS", TABLE_F_OWNER)]
    return _change(message, family, NFT_MSG_NEWTABLE, NLM_F_CREATE)


def drop_rules(family: int, table: str, chain: str) -> nfgen_msg:
    """Delete all rules of a chain."""
    message = nft_rule_msg()
    message["attrs"] = [("NFTA_RULE_TABLE", table), ("NFTA_RULE_CHAIN", chain)]
    return _change(message, family, NFT_MSG_DELRULE, 0)


def nat_output_chain(family: int, table: str, name: str) -> nfgen_msg:
    """Add the chain that sees connections which this host opens, before they are routed."""
    message = nft_chain_msg()
    hook = {"attrs": [("NFTA_HOOK_HOOKNUM", HOOK_OUTPUT), ("NFTA_HOOK_PRIORITY", PRIORITY_DSTNAT)]}
    message["attrs"] = [
        ("NFTA_CHAIN_TABLE", table),
        ("NFTA_CHAIN_NAME", name),
        ("NFTA_CHAIN_HOOK", hook),
        ("NFTA_CHAIN_TYPE", "nat"),
    ]
    return _change(message, family, NFT_MSG_NEWCHAIN, NLM_F_CREATE)


def rule(family: int, table: str, chain: str, expressions: Sequence[dict[str, Attributes]]) -> nfgen_msg:
    """Append a rule."""
    message = nft_rule_msg()
    message["attrs"] = [
        ("NFTA_RULE_TABLE", table),
        ("NFTA_RULE_CHAIN", chain),
        ("NFTA_RULE_EXPRESSIONS", list(expressions)),
    ]
    return _change(message, family, NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND)
