"""Spellings of addresses and host names, judged without a resolver."""

import ipaddress
import re
from typing import Final

NAME_LENGTH_MAX: Final = 253
_LABEL: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_NUMERIC: Final = re.compile(r"[0-9]+|0[xX][0-9a-fA-F]+")
_WITH_PORT: Final = re.compile(r"[^:]+:[0-9]+|\[.*\](:[0-9]+)?")


def normalise_address(address: str) -> str:
    """One spelling for each IP address, IPv4 mapped into IPv6 included; a name in lower case without a last dot."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address.lower().rstrip(".")
    mapped = getattr(parsed, "ipv4_mapped", None)
    return str(mapped or parsed)


def is_ip_address(text: str) -> bool:
    """Whether it is an IP address rather than a name."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def address_fault(text: str) -> tuple[str, str]:
    """Say what is wrong with an address of a peer and what to do about it; twice empty if nothing is."""
    if not text.strip():
        return "it is empty", "leave it out"
    if "/" in text:
        return "it is a network", "list single addresses"
    if _WITH_PORT.fullmatch(text):
        return "it has a port or brackets", "write the address alone; the agent's port is the key `port` of the peer"
    if is_ip_address(text):
        return _ip_fault(text)
    if not is_host_name(text):
        return "it is neither an IP address nor a host name", "correct it"
    return "", ""


def _ip_fault(text: str) -> tuple[str, str]:
    parsed = ipaddress.ip_address(text)
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.is_link_local:
        return "it is link-local, so that it means nothing without an interface", "list a routable address"
    if parsed.is_unspecified or parsed.is_multicast:
        return "no host has it", "list the host's own addresses"
    if parsed.is_loopback:
        return "every host has it", "list the addresses by which other hosts reach it"
    return "", ""


def is_host_name(text: str) -> bool:
    """Whether it is spelt as DNS spells names of hosts."""
    labels = text.removesuffix(".").split(".")
    whole = len(text) <= NAME_LENGTH_MAX and all(_LABEL.fullmatch(label) for label in labels)
    return whole and not _NUMERIC.fullmatch(labels[-1])  # as in 192.0.2.300, which is no name
