"""The Raft library's messages (dictionaries) in the schema of the wire, and back. No IO.

The rule: every message that crosses is named here. One that is not is a bug here if the library sends it, and refused
where it is decoded if a peer does.
"""

from typing import Any

from dwcp_migrate.state.raft import messages
from dwcp_migrate.state.raft.messages import as_entry, as_record


def to_wire(message: dict[str, Any], term: int) -> messages.Message:  # noqa: PLR0911 - one for each message
    """Turn one of the library's messages into the wire's.

    Args:
        message: as the library sends it.
        term: of this replica now; the library leaves it out of answers.
    """
    match message["type"]:
        case "append_entries":
            return _append(message, term)
        case "next_node_idx":
            return messages.Ack(
                term=term, next_index=message["next_node_idx"], reset=message["reset"], success=message["success"]
            )
        case "request_vote":
            return messages.RequestVote(
                term=message["term"], last_index=message["last_log_index"], last_term=message["last_log_term"]
            )
        case "response_vote":
            return messages.Vote(term=message["term"])
        case "timeout_now":
            return messages.TimeoutNow(term=term)
        case "apply_command":
            kind, payload = message["command"][0], message["command"][1:]
            return messages.Submit(term=term, request=message.get("request_id", 0), kind=kind, payload=payload)
        case "apply_command_response":
            return messages.Submitted(
                term=term,
                request=message["request_id"],
                index=message.get("log_idx", 0),
                entry_term=message.get("log_term", 0),
                error=message.get("error", 0),
            )
    raise AssertionError(f"the library sends {message['type']}")


def _append(message: dict[str, Any], term: int) -> messages.Append | messages.RaftSnapshot:
    if "serialized" in message:
        data, first, last = message["serialized"] or (b"", False, False)  # nothing to give now is a heartbeat
        return messages.RaftSnapshot(term=term, commit=message["commit_index"], data=data, first=first, last=last)
    return messages.Append(
        term=term,
        commit=message["commit_index"],
        previous_index=message["prevLogIdx"],
        previous_term=message["prevLogTerm"],
        entries=tuple(as_entry(record) for record in message["entries"]),
    )


def to_library(message: messages.Message) -> dict[str, Any]:  # noqa: PLR0911 - one for each message
    """Turn one of the wire's messages into the library's form; messages that the library lacks never get here."""
    match message:
        case messages.Append():
            return {
                "type": "append_entries",
                "term": message.term,
                "commit_index": message.commit,
                "prevLogIdx": message.previous_index,
                "prevLogTerm": message.previous_term,
                "entries": [as_record(entry) for entry in message.entries],
            }
        case messages.RaftSnapshot():
            return {
                "type": "append_entries",
                "term": message.term,
                "commit_index": message.commit,
                "serialized": (message.data, message.first, message.last),
            }
        case messages.Ack():
            return {
                "type": "next_node_idx",
                "next_node_idx": message.next_index,
                "reset": message.reset,
                "success": message.success,
            }
        case messages.RequestVote():
            last = {"last_log_index": message.last_index, "last_log_term": message.last_term}
            return {"type": "request_vote", "term": message.term, **last}
        case messages.Vote():
            return {"type": "response_vote", "term": message.term}
        case messages.TimeoutNow():
            return {"type": "timeout_now", "term": message.term}
        case messages.Submit():
            command = bytes([message.kind]) + message.payload
            return {"type": "apply_command", "command": command, "request_id": message.request}
        case messages.Submitted():
            answer = {"type": "apply_command_response", "request_id": message.request}
            place = {"log_idx": message.index, "log_term": message.entry_term}
            return {**answer, **({"error": message.error} if message.error else place)}
    raise AssertionError(f"the library does not know {type(message).__name__}")
