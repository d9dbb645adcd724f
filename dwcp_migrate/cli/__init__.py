"""The command line: the root of `dwcp-migrate`, its table of commands, and the form of its errors.

The rule here: nothing is imported before it is needed. Each sub-command is a module of this package whose attribute
`command` is a click command; the table below names it and its one line of help, so that `--help` and completion
import none of them. A typed error becomes `error: ...` (and `hint: ...`) on stderr, or under `--json` one object on
stdout, and its own exit code, see `errors`.

Modules:
    develop: commands for development
    fleet: commands about the fleet
    host: commands about this host
    migrations: commands about migrations
    pages: reports as HTML
    plans: commands about plans that agents carry out
    support: options and output that all commands share
"""

import re
import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Final, NoReturn

import click

from dwcp_migrate.cli.support.examples import add_examples
from dwcp_migrate.errors import DwcpError

SECTIONS: Final[dict[str, dict[str, tuple[str, str]]]] = {
    "This host": {
        "status": ("host", "Show the agent, its peers and the migrations under way."),
        "doctor": ("host", "Check this host and say what to do about what is wrong."),
        "check": ("migrations", "Try a peer: what would a migration to it get?"),
        "config": ("host", "Check or show the configuration."),
        "cordon": ("host", "Let the local agent take no new migration, as before its upgrade."),
        "uncordon": ("host", "Let the local agent take migrations again."),
        "disable": ("migrations", "Let migrations run as without the agent, also after a reboot."),
        "enable": ("migrations", "Let migrations be accelerated again, after `disable`."),
        "reload": ("host", "Let the agent read its configuration again."),
        "cert": ("host", "Make a small fleet CA; issue, sign, renew and show certificates."),
        "record": ("host", "Record the next migration's stream, for replay."),
        "store": ("host", "Show and change the pages that this host keeps of guests."),
        "sysdump": ("host", "Gather what a report of a fault wants into one archive."),
        "schema": ("support", "Print JSON Schemas of the commands' output, and the control API's description."),
        "agent": ("host", "Run the agent of this host."),
    },
    "Migrations": {
        "migrate": ("migrations", "Migrate a domain, to the best host unless one is named."),
        "top": ("migrations", "Watch the migrations live."),
        "predict": ("migrations", "Predict how long a migration will take, and advise."),
        "share": ("migrations", "Give a domain's migration a weight or a deadline."),
        "limit": ("migrations", "Hold the migrations to a peer to a rate, until it is taken off."),
        "warm": ("migrations", "Bring a guest's pages to a peer's page store while it runs."),
        "history": ("migrations", "List the migrations that ended."),
        "show": ("migrations", "Show one migration, by id or by domain."),
        "report": ("migrations", "Report on one migration, or on all of the fleet, as a page or text."),
        "events": ("migrations", "Follow migrations as they begin, change and end."),
        "abort": ("migrations", "End a migration that leaves this host."),
    },
    "Fleet": {
        "hosts": ("fleet", "List the fleet's hosts, what is promised on them and what is used."),
        "place": ("fleet", "Choose the best host for a domain."),
        "rebalance": ("fleet", "Rebalance the fleet: show the migrations, or carry them out."),
        "drain": ("fleet", "Migrate all domains off a host, and let none come."),
        "undrain": ("fleet", "Let a drained host take domains again."),
        "plans": ("plans", "List the plans that agents carry out."),
        "plan": ("plans", "Show, pause, resume or abort one of them."),
        "explain": ("fleet", "Explain why a plan sends each domain where it does."),
        "rules": ("fleet", "List, add and remove placement rules."),
        "cluster": ("fleet", "Show and change the cluster state."),
        "tickets": ("fleet", "List the migrations that the fleet agreed to."),
        "locks": ("fleet", "List, take and give back leases and shares of links."),
    },
    "Development": {
        "lab": ("develop", "Hypervisors and a WAN on this one machine, for trying out."),
        "demo": ("develop", "Migrate a lab guest stock and accelerated, and compare."),
        "train": ("develop", "Train the forecasters' models."),
        "replay": ("develop", "Run recorded streams through parser, encoder and decoder."),
    },
}
"""Heading in `--help`, and below it each sub-command (and module): the room of its module, and its line of help."""

COMMANDS: Final = {name: found for section in SECTIONS.values() for name, found in section.items()}
"""Sub-command (and module) name; the room that its module is in, and its line in `dwcp-migrate --help`."""

HIDDEN: Final = {"bench": "develop", "carry": "plans", "lookout": "plans"}
"""Hidden sub-commands and the rooms of their modules: old spellings, for one release more, and helpers of agents."""

EXIT_INTERNAL: Final = 70
"""Exit code of an unforeseen error (EX_SOFTWARE of sysexits.h)."""

ALIKE_MIN: Final = 0.6
"""Similarity from which a mistyped command is taken for another."""

EXIT_INTERRUPTED: Final = 130


class LazyGroup(click.Group):
    """A group that imports a sub-command when it is run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the sub-commands in the order of the table, not of the alphabet."""
        del ctx
        return [name for name, (room, _) in COMMANDS.items() if _is_installed(room)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the sub-command's module and return its `command`.

        Args:
            ctx: not used; click passes it.
            cmd_name: as typed; old spellings count too.

        Returns:
            None where there is no such command, or this installation does not carry it.
        """
        del ctx
        room = COMMANDS[cmd_name][0] if cmd_name in COMMANDS else HIDDEN.get(cmd_name)
        if room is None or not _is_installed(room):
            return None
        module = import_module(f"{__name__}.{room}.{cmd_name}")
        found: click.Command = module.command
        add_examples(found, cmd_name)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the sub-command; `help` shows help, and a mistyped name is answered with the nearest one.

        Args:
            ctx: of the group, for its help and for errors.
            args: of the command line, the sub-command's name first.

        Raises:
            click.UsageError: no such command.
        """
        if args[0] == "help":
            args = [*args[1:], "--help"]
        if args[0] == "--help":
            click.echo(ctx.get_help())
            ctx.exit()
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from difflib import get_close_matches

            alike = get_close_matches(args[0], COMMANDS, n=1, cutoff=ALIKE_MIN)
            if not alike or "Did you mean" in error.message:
                raise
            raise click.UsageError(f"{error.message} Did you mean {alike[0]!r}?", ctx) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sub-commands below their headings without importing them.

        Args:
            ctx: not used; click passes it.
            formatter: takes the text.
        """
        del ctx
        for heading, commands in SECTIONS.items():
            rows = [(name, line) for name, (room, line) in commands.items() if _is_installed(room)]
            if rows:
                with formatter.section(heading):
                    formatter.write_dl(rows)


def _is_installed(room: str) -> bool:
    """Tell whether the commands of a room are installed: packages do not carry those for development."""
    return room != "develop" or find_spec(f"{__name__}.{room}") is not None


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="dwcp-migrate", prog_name="dwcp-migrate")
def root() -> None:
    """Make `virsh migrate` several times faster with stock QEMU and libvirt.

    `dwcp-migrate COMMAND --help` says more; every view has --json.
    """


def main() -> NoReturn:
    """Run the command line and exit."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command line.

    Returns:
        Exit code: 0, 2 for wrong usage, 130 after Ctrl-C, 70 for an unforeseen error, else that of the error's class
        (see `errors`).

    Raises:
        SystemExit: click's own, with 1, when the reader of our output left (`| head`).
    """
    try:
        # Outside standalone mode click returns the code of ctx.exit(), or else what the command returned.
        code = root.main(arguments, prog_name="dwcp-migrate", standalone_mode=False)
    except BrokenPipeError:
        raise
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the last resort: no traceback reaches a user
        return _report(error, arguments)
    return code if isinstance(code, int) else 0


def _report(error: BaseException, arguments: list[str]) -> int:
    """Say what went wrong and return the exit code; arguments are of the command line."""
    as_json = "--json" in arguments
    if isinstance(error, OSError):
        # What the program was not prepared for outside of itself: a full disk, no permission, no such directory.
        error = DwcpError(str(error))
    if isinstance(error, DwcpError):
        return report_error(error, as_json=as_json)
    if isinstance(error, click.ClickException):
        if as_json:
            return _report_as_json(error.format_message(), "usage", error.exit_code)
        error.show()
        return error.exit_code
    if isinstance(error, click.Abort | KeyboardInterrupt):
        if as_json:
            return _report_as_json("interrupted", "interrupted", EXIT_INTERRUPTED)
        click.echo("interrupted", err=True)
        return EXIT_INTERRUPTED
    return report_unforeseen(error, arguments)


def report_error(error: DwcpError, *, as_json: bool = False) -> int:
    """Print an error the way virsh does, or as an object on standard output.

    Args:
        error: to be told.
        as_json: how.

    Returns:
        Exit code.
    """
    if as_json:
        return _report_as_json(str(error), kind_of(error), error.exit_code, error.hint)
    click.echo(f"error: {error}", err=True)
    if error.hint:
        click.echo(f"hint: {error.hint}", err=True)
    return error.exit_code


def report_unforeseen(error: BaseException, arguments: list[str]) -> int:
    """Report an error as a fault of this program, with its traceback in a file.

    Args:
        error: the unforeseen one.
        arguments: of the command line, for the file.

    Returns:
        Exit code.
    """
    import tempfile
    import traceback

    from dwcp_migrate import __version__

    head = f"dwcp-migrate {__version__}: {' '.join(arguments)}\n"
    with tempfile.NamedTemporaryFile("w", prefix="dwcp-migrate-error-", suffix=".txt", delete=False) as file:
        file.write(head + "".join(traceback.format_exception(error)))
    words = f"internal error ({type(error).__name__}: {error})"
    if "--json" in arguments:
        return _report_as_json(words, "internal", EXIT_INTERNAL, "please report it", report=file.name)
    click.echo(f"error: {words}", err=True)
    click.echo(f"hint: this is a fault of dwcp-migrate; please report it with {file.name}", err=True)
    return EXIT_INTERNAL


def kind_of(error: DwcpError) -> str:
    """Name an error's class for scripts, as `agent-unreachable`."""
    if type(error) is DwcpError:
        return "failed"
    words = re.findall("[A-Z][a-z]*", type(error).__name__.removesuffix("Error"))
    return "-".join(words).lower()


def _report_as_json(error: str, kind: str, code: int, hint: str = "", *, report: str = "") -> int:
    from dwcp_migrate.cli.support import output
    from dwcp_migrate.cli.support.failure import CommandFailure

    failure = CommandFailure(error=error, hint=hint, kind=kind, exit_code=code, report=report)
    try:
        click.echo(output.as_line(failure))
    except OSError:  # a full disk takes no object either
        click.echo(f"error: {error}", err=True)
    return code
