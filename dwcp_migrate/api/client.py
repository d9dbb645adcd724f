"""The CLI's side of the control API: HTTP over the agent's unix socket, answers as typed structs.

The rule: an answer is the struct that `api.schema` promises or a typed error that says what to do. Standard library
only, because `status` must answer in a fraction of a second and aiohttp alone takes longer to import; what only a
request needs is imported by the request, not by `--help`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from dwcp_migrate.api import schema
from dwcp_migrate.errors import (
    AgentUnreachableError,
    ConfigError,
    CoordinationError,
    DwcpError,
    NotFoundError,
    StalePlanError,
)

TIMEOUT_S: Final = 15.0
"""Longest wait for one answer; `/v1/peers` asks every peer at once, each within `link.connect_timeout_s`;
a change of the fleet's membership takes up to 10 s."""

ANSWER_BYTES_MAX: Final = 64 * 1024 * 1024
"""A full history page of `HISTORY_LIMIT_MAX` records with all their events stays below it."""

UPDATE_BYTES_MAX: Final = 1024 * 1024
"""One server-sent event: a record with all its events."""

STATUS_OK: Final = 200
STATUS_NOT_FOUND: Final = 404
STATUS_CONFLICT: Final = 409
STATUS_STALE: Final = 412
STATUS_UNPROCESSABLE: Final = 422
STATUS_UNAVAILABLE: Final = 503

Answer = TypeVar("Answer", bound=msgspec.Struct)


class ApiClient:
    """The local agent, reached by its control socket; one connection a request."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def status(self) -> schema.AgentStatus:
        """The agent at a glance. Raises AgentUnreachableError like every method here."""
        return self._get("/v1/status", schema.AgentStatus)

    def peers(self) -> list[schema.PeerView]:
        """All peers, asked just now."""
        return self._get("/v1/peers", schema.Peers).peers

    def facts(self) -> schema.Facts:
        """The facts that `doctor` judges."""
        return self._get("/v1/doctor", schema.Facts)

    def running_config(self) -> schema.RunningConfig:
        """The configuration in force."""
        return self._get("/v1/config", schema.RunningConfig)

    def migrations(self) -> schema.Migrations:
        """Migrations that run now."""
        return self._get("/v1/migrations", schema.Migrations)

    def history(self, limit: int) -> schema.Migrations:
        """The newest `limit` migrations that ended."""
        return self._get(f"/v1/history?limit={limit}", schema.Migrations)

    def predict(self, domain: str, peer: str, deadline_s: float) -> schema.Predicted:
        """Predict a migration; the agent measures the domain's dirty rate first, which takes about a second.

        Args:
            domain: libvirt's name of one that runs here.
            peer: name of the destination.
            deadline_s: from now until it should be over; 0 is no deadline.

        Raises:
            NotFoundError: no such domain or peer.
        """
        query = urlencode({"domain": domain, "peer": peer, "deadline_s": deadline_s})
        return self._get(f"/v1/predict?{query}", schema.Predicted)

    def share(self, domain: str, weight: float, deadline_s: float) -> schema.Done:
        """Set how a domain's running or next migration shares its link.

        Args:
            domain: libvirt's name.
            weight: share relative to the other migrations', above 0 and at most `schema.WEIGHT_MAX`.
            deadline_s: from now until it should be over; 0 is no deadline.
        """
        return self.post("share", domain=domain, weight=str(weight), deadline_s=str(deadline_s))

    def migration(self, prefix: str) -> schema.Migration:
        """One migration by a unique prefix of its id.

        Raises:
            NotFoundError: there is none, or more than one.
        """
        return self._get(f"/v1/migrations/{quote(prefix, safe='')}", schema.Migration)

    def post(self, action: str, **query: str) -> schema.Done:
        """Ask for `drain`, `undrain`, `reload`, `record` or `share`."""
        suffix = f"?{urlencode(query)}" if query else ""
        return self._ask("POST", f"/v1/{action}{suffix}", schema.Done)

    def events(self) -> Iterator[schema.Update]:
        """Updates as they happen, until the agent stops.

        Raises:
            AgentUnreachableError: it does not answer, or went away.
        """
        from http.client import HTTPException

        from dwcp_migrate.api.unix_http import UnixConnection

        connection = UnixConnection(self.path, TIMEOUT_S)
        try:
            connection.request("GET", "/v1/events")
            if connection.sock is not None:
                connection.sock.settimeout(None)  # the next update may take days
            with connection.getresponse() as answer:
                while line := answer.readline(UPDATE_BYTES_MAX):
                    if line.startswith(b"data:"):
                        yield msgspec.json.decode(line.removeprefix(b"data:"), type=schema.Update)
        except (OSError, HTTPException, msgspec.MsgspecError) as error:
            raise _unreachable(self.path, error) from error
        finally:
            connection.close()
        raise AgentUnreachableError(f"the agent on {self.path} stopped", hint="follow again when it is back")

    def ask(self, view: str, kind: type[Answer], timeout_s: float = TIMEOUT_S) -> Answer:
        """Ask for a view by its name.

        Args:
            view: path below `/v1/`, with its query.
            kind: struct of the answer.
            timeout_s: for the answer.

        Raises:
            CoordinationError: it needs the fleet's state, which does not answer.
        """
        return self._ask("GET", f"/v1/{view}", kind, timeout_s=timeout_s)

    def change(self, action: str, kind: type[Answer], body: bytes = b"", **query: str) -> Answer:
        """Ask for a change of the fleet's state.

        Args:
            action: path below `/v1/`.
            kind: struct of the answer.
            body: JSON of the request; empty for none.
            **query: parameters, as the heads of `api.cluster`, `api.plans` and `api.watch` list them.

        Raises:
            CoordinationError: the fleet does not answer, or says no.
            StalePlanError: somebody else changed the record meanwhile.
        """
        return self._ask("POST", f"/v1/{action}?{urlencode(query)}", kind, body)

    def _get(self, target: str, kind: type[Answer]) -> Answer:
        return self._ask("GET", target, kind)

    def _ask(
        self, method: str, target: str, kind: type[Answer], sent: bytes = b"", timeout_s: float = TIMEOUT_S
    ) -> Answer:
        status, body = self._exchange(method, target, sent, timeout_s)
        try:
            if status != STATUS_OK:
                raise _refusal(status, msgspec.json.decode(body, type=schema.Failure))
            return msgspec.json.decode(body, type=kind)
        except msgspec.MsgspecError as error:
            raise AgentUnreachableError(
                f"what listens on {self.path} does not answer like an agent of this version: {error}",
                hint="after an upgrade: systemctl restart dwcp-migrate, once no migration runs",
            ) from error

    def _exchange(self, method: str, target: str, sent: bytes, timeout_s: float) -> tuple[int, bytes]:
        from http.client import HTTPException

        from dwcp_migrate.api.unix_http import UnixConnection

        connection = UnixConnection(self.path, timeout_s)
        try:
            connection.request(method, target, sent or None)
            answer = connection.getresponse()
            return answer.status, answer.read(ANSWER_BYTES_MAX)
        except (OSError, HTTPException) as error:
            raise _unreachable(self.path, error) from error
        finally:
            connection.close()


def _unreachable(path: Path, error: Exception) -> AgentUnreachableError:
    if isinstance(error, PermissionError):
        return AgentUnreachableError(
            f"no permission to use {path}", hint="run it as root or as a member of the group dwcp-migrate"
        )
    return AgentUnreachableError(
        f"the agent does not answer on {path}: {getattr(error, 'strerror', None) or error}",
        hint="is it running? systemctl status dwcp-migrate; another agent: --config FILE or --socket PATH",
    )


def _refusal(status: int, failure: schema.Failure) -> DwcpError:
    kinds: dict[int, type[DwcpError]] = {
        STATUS_NOT_FOUND: NotFoundError,
        STATUS_CONFLICT: NotFoundError,
        STATUS_STALE: StalePlanError,
        STATUS_UNPROCESSABLE: ConfigError,
        STATUS_UNAVAILABLE: CoordinationError,
    }
    return kinds.get(status, DwcpError)(failure.error, hint=failure.hint)


def control_socket(config_path: Path | None, given: Path | None) -> Path:
    """Find the control socket: as given, else from the configuration file, else where it is by default.

    Args:
        config_path: configuration that the operator named; None reads the default one, if this user may.
        given: socket that the operator named; it wins over any configuration.

    Raises:
        ConfigError: the operator named a configuration file that cannot be used.
    """
    if given is not None:
        return given
    from dwcp_migrate.config import DEFAULT_PATH, Config, load

    if config_path is not None:
        return load(config_path).control_socket
    try:
        return load(DEFAULT_PATH).control_socket
    except ConfigError:
        return Config().control_socket  # the file may be unreadable to a member of the group
