"""Mutations of the cores: one wrong line each, and the tests that must notice.

A mutation that no test notices is either a missing test or a line that does nothing.
"""

from typing import Final, NamedTuple

PBFT: Final = "dwcp_migrate/consensus/pbft"
MODEL: Final = f"{PBFT}/model"
TICKETS: Final = "dwcp_migrate/consensus/tickets/machine.py"
VERIFIER: Final = "dwcp_migrate/consensus/tickets/verifier.py"
FLEET: Final = "dwcp_migrate/state/fleet/tickets.py"
LEASES: Final = "dwcp_migrate/state/fleet/leases.py"
RAFT: Final = "dwcp_migrate/state/raft"

CORE: Final = (
    "tests/consensus/pbft",
    "tests/consensus/tickets",
    "tests/consensus/test_scenarios.py",
    "tests/consensus/test_simulation.py",
)
FLEETS: Final = ("tests/state/fleet", "tests/state/test_simulation.py")
RAFTS: Final = ("tests/state/raft",)


class Mutant(NamedTuple):
    """A mutation.

    Attributes:
        file: that is changed.
        old: text that stands there once.
        new: in its place.
        tests: that must fail, the quick ones first.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...] = CORE


MUTANTS: Final = (
    # membership
    Mutant(
        "raft: a committed change is carried out again",
        f"{RAFT}/replica.py",
        "        return self._machine.apply(decode_batch(command[1:])) if command[0] == messages.REGULAR else None",
        "        if command[0] == messages.MEMBERSHIP:\n            change = messages.decode_membership(command[1:])\n            self._raft.change(change.verb, change.name)\n            return None\n        return self._machine.apply(decode_batch(command[1:])) if command[0] == messages.REGULAR else None",
        ("tests/state/raft/test_replica.py", *RAFTS),
    ),
    Mutant(
        "raft: who lost its vote is cut off",
        f"{RAFT}/replica.py",
        "            if not has_say:\n                return\n",
        "",
        ("tests/state/raft/test_replica.py", *RAFTS),
    ),
    # quorums
    Mutant("quorum one too small", f"{MODEL}/quorum.py", "(size + faulty) // 2 + 1", "(size + faulty) // 2"),
    Mutant("weak is one", f"{MODEL}/quorum.py", "// 2 + 1, faulty + 1)", "// 2 + 1, 1)"),
    Mutant("prepared one vote early", f"{PBFT}/normal_case.py", ">= quorum - 1:", ">= quorum - 2:"),
    Mutant(
        "committed one vote early",
        f"{PBFT}/normal_case.py",
        "count_votes(slot.commits, name) >= quorum:",
        "count_votes(slot.commits, name) >= quorum - 1:",
    ),
    Mutant(
        "one claim is believed",
        f"{PBFT}/state_transfer.py",
        "count_votes(slot.claims, name) < core.group.numbers.weak",
        "count_votes(slot.claims, name) < 1",
    ),
    Mutant(
        "a client believes one reply",
        f"{PBFT}/client.py",
        "if len(same) < self._group.numbers.weak:",
        "if len(same) < 1:",
    ),
    Mutant(
        "a certificate of fewer",
        f"{PBFT}/certificate.py",
        "or len(self.signatures) < needed:",
        "or len(self.signatures) < needed - 1:",
    ),
    Mutant(
        "a checkpoint of fewer",
        f"{MODEL}/checkpoints.py",
        "if len(signatures) < group.numbers.quorum:",
        "if len(signatures) < group.numbers.weak:",
    ),
    Mutant(
        "a proof of fewer",
        f"{MODEL}/checkpoints.py",
        "if len(proof.signatures) < group.numbers.quorum or",
        "if len(proof.signatures) < group.numbers.weak or",
    ),
    # signatures
    Mutant(
        "view changes unsigned",
        f"{PBFT}/new_view.py",
        "VIEW_CHANGE, group.cluster, change.body, change.signature):\n        return None",
        "VIEW_CHANGE, group.cluster, change.body, change.signature):\n        pass",
    ),
    Mutant(
        "new views unsigned",
        f"{PBFT}/view_change.py",
        "NEW_VIEW, group.cluster, data, proof.signature):\n            return None",
        "NEW_VIEW, group.cluster, data, proof.signature):\n            pass",
    ),
    Mutant(
        "checkpoints unsigned",
        f"{MODEL}/checkpoints.py",
        "return is_signed(key, CHECKPOINT, group.cluster, data, vote.signature)",
        "return True",
    ),
    Mutant(
        "proofs unsigned",
        f"{MODEL}/checkpoints.py",
        "    return all(\n        is_signed(",
        "    return True or all(\n        is_signed(",
    ),
    Mutant(
        "requests unsigned",
        f"{PBFT}/requests.py",
        "return is_signed(member.key, REQUEST, core.group.cluster, request.body, request.signature)",
        "return True",
    ),
    Mutant(
        "authenticators unread",
        f"{PBFT}/requests.py",
        "        self._suspects[body.client] = core.now + SUSPECT_S\n        return False",
        "        return True",
    ),
    Mutant(
        "certificates unsigned",
        f"{PBFT}/certificate.py",
        "if not is_signed(keys[name], DECISION, cluster, data, signature):",
        "if False:",
    ),
    Mutant(
        "purposes unbound",
        f"{MODEL}/keys.py",
        "digest_size=DIGEST_BYTES, person=purpose, salt=cluster)",
        "digest_size=DIGEST_BYTES, salt=cluster)",
    ),
    Mutant(
        "clusters unbound",
        f"{MODEL}/keys.py",
        "digest_size=DIGEST_BYTES, person=purpose, salt=cluster)",
        "digest_size=DIGEST_BYTES, person=purpose)",
    ),
    Mutant(
        "authenticators of any cluster",
        f"{MODEL}/keys.py",
        "key=key, person=REQUEST, salt=cluster)",
        "key=key, person=REQUEST)",
    ),
    # epochs
    Mutant(
        "votes of other epochs",
        f"{PBFT}/view_change.py",
        "core.active and message.epoch == core.group.epoch:",
        "core.active:",
    ),
    Mutant("checkpoints of other epochs", f"{MODEL}/checkpoints.py", "or vote.epoch != group.epoch or", "or"),
    Mutant(
        "checkpoints after the end",
        f"{MODEL}/checkpoints.py",
        "return group.until is None or sequence <= group.until",
        "return True",
    ),
    Mutant("view changes of other epochs", f"{PBFT}/new_view.py", "body.epoch != group.epoch or", ""),
    Mutant(
        "a reconfiguration beside others",
        f"{PBFT}/normal_case.py",
        "        if content.reconfigures and not self._is_next(sequence):\n            return False\n",
        "",
    ),
    Mutant(
        "proposals behind a reconfiguration",
        f"{PBFT}/normal_case.py",
        "if core.pending is not None or core.executed < self._barrier:",
        "if core.pending is not None:",
    ),
    Mutant("any epoch may follow", f"{PBFT}/reconfiguration.py", "membership.epoch != group.epoch + 1 or", ""),
    Mutant(
        "anybody changes the members",
        f"{PBFT}/reconfiguration.py",
        "if member is None or not member.operator:",
        "if member is None:",
    ),
    Mutant(
        "removed clients are kept",
        f"{PBFT}/execution.py",
        "core.clients.forget(core.group.clients.keys() - core.pending.clients.keys())",
        "pass",
    ),
    Mutant(
        "requests of long ago",
        f"{PBFT}/requests.py",
        "if member is None or not self._is_of_now(body):",
        "if member is None:",
    ),
    Mutant(
        "a link of strangers",
        f"{PBFT}/model/epoch_links.py",
        "if not link.proof.sequence or not is_proven(link.proof, (old,)):",
        "if False:",
    ),
    # P and Q
    Mutant(
        "A1 left out",
        f"{PBFT}/new_view.py",
        "if agree >= numbers.quorum and vouch >= numbers.weak:",
        "if vouch >= numbers.weak:",
    ),
    Mutant(
        "A2 left out",
        f"{PBFT}/new_view.py",
        "if agree >= numbers.quorum and vouch >= numbers.weak:",
        "if agree >= numbers.quorum:",
    ),
    Mutant("older views win", f"{PBFT}/new_view.py", "sorted(set(held), reverse=True)", "sorted(set(held))"),
    Mutant(
        "empty without a quorum",
        f"{PBFT}/new_view.py",
        "len(prepared) - len(held) >= numbers.quorum else None",
        "len(prepared) - len(held) >= 1 else None",
    ),
    Mutant(
        "view changes of other views",
        f"{PBFT}/view_change.py",
        "if body is None or body.view != proof.view or",
        "if body is None or",
    ),
    Mutant("one view change twice", f"{PBFT}/view_change.py", "or body.replica in bodies:", "or False:"),
    Mutant(
        "new views unexamined",
        f"{PBFT}/view_change.py",
        "        if choice is None:\n            core.counters.refused += 1\n            return\n        self._enter",
        "        if choice is None:\n            choice = NewViewChoice(core.stable, {})\n        self._enter",
    ),
    Mutant(
        "views of the future in P and Q",
        f"{PBFT}/new_view.py",
        "return body if all(view < body.view for view in views) else None",
        "return body",
    ),
    Mutant(
        "announced without the batch",
        f"{PBFT}/view_change.py",
        "if choice is None or not self._holds(choice):",
        "if choice is None:",
    ),
    Mutant(
        "announced without the state",
        f"{PBFT}/view_change.py",
        "        if choice.stable.sequence > core.executed:\n            return False  # `Catchup` fetches the state\n",
        "",
    ),
    Mutant("compaction forgets P", f"{PBFT}/recovery.py", "if slot.prepared[0] >= 0:", "if False:"),
    Mutant(
        "compaction forgets Q of earlier views",
        f"{PBFT}/recovery.py",
        "for name, view in sorted(slot.seen.items(), key=lambda item: item[1]):",
        "for name, view in sorted(slot.seen.items(), key=lambda item: item[1])[-1:]:",
        ("tests/consensus/pbft/test_recovery.py", *CORE),
    ),
    Mutant(
        "compaction forgets that a view was left",
        f"{PBFT}/recovery.py",
        "        entries.append(records.ViewLeft(core.view))",
        "        pass",
        ("tests/consensus/pbft/test_recovery.py", *CORE),
    ),
    Mutant(
        "P is never written",
        f"{PBFT}/normal_case.py",
        "            core.write(records.WasPrepared(core.view, slot.sequence, name))\n",
        "",
    ),
    Mutant(
        "Q is never written",
        f"{PBFT}/normal_case.py",
        "        core.write(records.Accepted(core.view, slot.sequence, name, data))\n",
        "",
    ),
    Mutant("leaving is never written", f"{PBFT}/view_change.py", "        core.write(records.ViewLeft(view))\n", ""),
    Mutant(
        "torn records are not made up for",
        f"{PBFT}/view_change.py",
        "        if core.is_primary and self._agreement.missing():\n            self.leave(core.view + 1)\n",
        "",
    ),
    # sync order, journal
    Mutant(
        "promises need no sync", f"{PBFT}/core.py", "self.out.sync = self.out.sync or sync", "self.out.sync = False"
    ),
    Mutant("compaction needs no sync", f"{PBFT}/replica.py", "            out.sync = True\n", ""),
    Mutant("damage is a torn tail", f"{MODEL}/records.py", "    if _is_damaged(data, at):", "    if False:"),
    Mutant(
        "records stand anywhere",
        f"{MODEL}/records.py",
        "return (entry, durable, start + length) if place == at else None",
        "return entry, durable, start + length",
    ),
    Mutant(
        "a hole is damage", f"{MODEL}/records.py", "record[1] is not None and record[1] > at:", "record[1] is not None:"
    ),
    # watermarks, transfer, clients
    Mutant(
        "the window has no end",
        f"{MODEL}/log.py",
        "return self.stable < sequence <= self.stable + self.window",
        "return self.stable < sequence",
    ),
    Mutant(
        "parts of a state unchecked",
        f"{PBFT}/state_transfer.py",
        "if compute_digest(part.data) != transfer.digests[part.index]:",
        "if False:",
    ),
    Mutant(
        "manifests unproven",
        f"{PBFT}/state_transfer.py",
        "if not is_proven(proof, self._epochs.trusted) or manifest_digest(manifest.parts) != proof.digest:",
        "if False:",
    ),
    Mutant(
        "requests are executed again",
        f"{MODEL}/client_table.py",
        "            return ClientProgress.DONE",
        "            return ClientProgress.NEW",
    ),
    Mutant(
        "old numbers are new",
        f"{MODEL}/client_table.py",
        "return ClientProgress.STALE if number",
        "return ClientProgress.NEW if number",
    ),
    Mutant(
        "a wrong clock is proposed",
        f"{PBFT}/normal_case.py",
        "        if skew > core.options.clock_skew_ms and content.time_ms != core.time_ms:\n            return False\n",
        "",
    ),
    Mutant(
        "followers vote",
        f"{PBFT}/core.py",
        "return self.group.keys.get(self.name) == self.identity.public",
        "return self.name in self.group.keys",
    ),
    # tickets
    Mutant(
        "the source takes a begun ticket back",
        TICKETS,
        "if known.begun and context.client == ticket.source and",
        "if False and",
    ),
    Mutant(
        "a begun ticket is replaced",
        TICKETS,
        '        if held is not None and known.begun:\n            return Refusal("domain-busy", held.token)\n',
        "",
    ),
    Mutant(
        "anybody begins",
        TICKETS,
        '            return Refusal("not-destination", ticket.token)\n        if self._open(wanted.domain, context) is None:',
        "            pass\n        if self._open(wanted.domain, context) is None:",
    ),
    Mutant(
        "anybody owns",
        TICKETS,
        '        if known.owner not in {NOBODY, context.client}:\n            return Refusal("not-owner")\n        held',
        "        held",
    ),
    Mutant("anybody assigns", TICKETS, "if not context.is_operator:", "if False:"),
    Mutant(
        "a late word is lost",
        TICKETS,
        "if not known.begun and self._open(wanted.domain, context) is None:",
        "if self._open(wanted.domain, context) is None:",
    ),
    Mutant(
        "a move keeps the generation",
        TICKETS,
        "        self._close(known)\n        known.generation += 1\n        return Ownership(domain, known.owner, known.generation)",
        "        self._close(known)\n        return Ownership(domain, known.owner, known.generation)",
    ),
    Mutant("no share of the table", TICKETS, "if self._owned[owner] >= OWNED_MAX:", "if False:"),
    Mutant("tickets are begun at any time", TICKETS, "is_late = not known.begun and", "is_late = False and"),
    Mutant("a certificate is used twice", VERIFIER, "if ticket.token in self.used:", "if False:"),
    # the fleet's state, and Raft under it
    Mutant("fleet: not the owner", FLEET, "known is not None and known.owner != source.name", "False", FLEETS),
    Mutant("fleet: no certificate across", FLEET, "crosses and not body.certificate", "False", FLEETS),
    Mutant(
        "fleet: a limit is passed", FLEET, "sum(1 for _ in tickets) >= limit", "sum(1 for _ in tickets) > limit", FLEETS
    ),
    Mutant(
        "fleet: anybody begins",
        FLEET,
        '    if by != ticket.destination:\n        return TicketOutcome("stranger", ticket.token)\n    if ticket.state == "granted":',
        '    if ticket.state == "granted":',
        FLEETS,
    ),
    Mutant(
        "fleet: a conflict resumes",
        FLEET,
        '        return TicketOutcome("unresolved", ticket.token)\n    return _complete(fleet, ticket, "")',
        '        pass\n    return _complete(fleet, ticket, "")',
        FLEETS,
    ),
    Mutant(
        "fleet: the destination fails a running one",
        FLEET,
        'if ticket.state == "granted" else {ticket.source}',
        "if True else {ticket.source}",
        FLEETS,
    ),
    Mutant(
        "fleet: a move keeps the generation",
        FLEET,
        "owner=ticket.destination, generation=domain.generation + 1)",
        "owner=ticket.destination)",
        FLEETS,
    ),
    Mutant(
        "fleet: handed over while it moves",
        FLEET,
        '    if body.uuid in fleet.open_tickets:\n        return TicketOutcome("busy", fleet.open_tickets[body.uuid].token)\n    if body.destination != by:',
        "    if body.destination != by:",
        FLEETS,
    ),
    Mutant(
        "raft: two changes at once",
        f"{RAFT}/replica.py",
        "        if self._changes(self.applied_index):\n            return False\n",
        "",
        RAFTS,
    ),
    Mutant(
        "raft: removal without a majority",
        f"{RAFT}/replica.py",
        "return may and self._has_majority(self.voters - {name})",
        "return may",
        RAFTS,
    ),
    Mutant(
        "raft: half is a majority",
        f"{RAFT}/replica.py",
        "return len(present) * 2 > len(voters)",
        "return len(present) * 2 >= len(voters)",
        RAFTS,
    ),
    Mutant(
        "raft: sent before it is synced",
        f"{RAFT}/replica.py",
        "        if self._exchange.must_sync:\n            self._journal.sync()\n",
        "        if self._exchange.must_sync:\n",
        RAFTS,
    ),
    Mutant(
        "raft: a leader's log takes any time",
        f"{RAFT}/pysyncobj.py",
        "return command[:1] + self.owner.held_back(command[1:])",
        "return command",
        RAFTS,
    ),
)
