"""Differences of two configurations, key by key, and the keys that only a restart brings into force."""

from typing import Any

import msgspec
from msgspec.structs import replace

from dwcp_migrate.config.model import Config


class ChangedKey(msgspec.Struct, frozen=True):
    """A key with two values, as JSON has them; None where one side does not have it."""

    key: str
    before: Any
    after: Any


def as_builtins(config: Config) -> dict[str, Any]:
    """Turn a configuration into dicts, lists and scalars."""
    found: dict[str, Any] = msgspec.to_builtins(config, enc_hook=str)
    return found


def find_differences(before: Config, after: Config) -> list[ChangedKey]:
    """Find the keys whose values differ; lists of tables are compared element by element.

    Args:
        before: configuration on the left of the comparison, normally the one in force.
        after: the other one.

    Returns:
        The keys in the order of the configuration; None stands for a key that one side does not have.
    """
    one, other = _flat(as_builtins(before), ""), _flat(as_builtins(after), "")
    keys = list(dict.fromkeys([*one, *other]))
    return [
        ChangedKey(key, one.get(key), other.get(key)) for key in keys if one.get(key, _NONE) != other.get(key, _NONE)
    ]


_NONE = object()


def _flat(value: Any, path: str) -> dict[str, Any]:
    if isinstance(value, dict):
        within = [(f"{path}.{name}" if path else name, one) for name, one in value.items()]
    elif isinstance(value, list | tuple) and any(isinstance(one, dict) for one in value):
        within = [(f"{path}[{place}]", one) for place, one in enumerate(value)]
    else:
        return {path: list(value) if isinstance(value, tuple) else value}
    return {key: found for inner, one in within for key, found in _flat(one, inner).items()}


def keeping_listeners(new: Config, old: Config) -> Config:
    """Build the configuration that a reload brings into force: the new one without what only a restart can change.

    Args:
        new: as the file says now.
        old: in force; its sockets, paths, name and group stay.
    """
    intercept = replace(
        new.intercept,
        port=old.intercept.port,
        explicit_port=old.intercept.explicit_port,
        mark=old.intercept.mark,
    )
    link = replace(new.link, listen=old.link.listen, port=old.link.port)
    group = old.coordination.pbft
    return replace(
        new,
        name=old.name,
        libvirt_uri=old.libvirt_uri,
        runtime_directory=old.runtime_directory,
        state_directory=old.state_directory,
        metrics_listen=old.metrics_listen,
        metrics=old.metrics,
        log_format=old.log_format,
        coordination=replace(
            new.coordination,
            engine=old.coordination.engine,
            voters=old.coordination.voters,
            election_ms=old.coordination.election_ms,
            endpoints=old.coordination.endpoints,
            etcd=old.coordination.etcd,
            pbft=replace(
                new.coordination.pbft,
                cluster=group.cluster,
                key=group.key,
                members=group.members,
                clients=group.clients,
                epoch=group.epoch,
            ),
        ),
        intercept=intercept,
        link=link,
    )
