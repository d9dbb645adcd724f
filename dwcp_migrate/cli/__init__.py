"""The command line: the root of `dwcp-migrate`, its table of commands, and the form of its errors.

The rule here: nothing is imported before it is needed. Each sub-command is a module of this package whose attribute
`command` is a click command; the table below names it and its one line of help, so that `--help` and completion
import none of them. A typed error becomes `error: ...` (and `hint: ...`) on stderr and its own exit code, see `errors`.

Modules:
    develop: commands for development
    fleet: commands about the fleet
    host: commands about this host
    migrations: commands about migrations
    support: options and output that all commands share
"""

import sys
from importlib import import_module
from typing import Final, NoReturn

import click

from dwcp_migrate.errors import DwcpError

COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "agent": ("host", "Run the agent of this host."),
    "status": ("host", "Show the agent, its peers and the migrations under way."),
    "top": ("migrations", "Watch the migrations live."),
    "predict": ("migrations", "Say how long a migration will take, and what to do."),
    "share": ("migrations", "Give a domain's migration a weight or a deadline."),
    "history": ("migrations", "List the migrations that ended."),
    "show": ("migrations", "Show one migration, by id or by domain."),
    "cluster": ("fleet", "Show and change the fleet's shared state."),
    "tickets": ("fleet", "List the migrations that the fleet agreed to."),
    "locks": ("fleet", "List, take and give back leases and shares of links."),
    "doctor": ("host", "Check this host and say what to do about what is wrong."),
    "config": ("host", "Check or show the configuration."),
    "place": ("fleet", "Say which host takes a domain best."),
    "migrate": ("migrations", "Migrate a domain, to the best host unless one is named."),
    "rebalance": ("fleet", "Even the fleet out: show the migrations, or carry them out."),
    "drain": ("fleet", "Migrate all domains off a host, and let none come."),
    "undrain": ("fleet", "Let a drained host take domains again."),
    "explain": ("fleet", "Say why a plan sends each domain where it does."),
    "rules": ("fleet", "List, add and remove placement rules."),
    "cordon": ("host", "Let the local agent take no new migration, as before its upgrade."),
    "uncordon": ("host", "Let the local agent take migrations again."),
    "reload": ("host", "Let the agent read its configuration again."),
    "record": ("host", "Record the next migration's stream, for replay."),
    "cert": ("host", "Make a small fleet CA and issue host certificates."),
    "lab": ("develop", "Hypervisors and a WAN on this one machine, for trying out."),
    "demo": ("develop", "Migrate a lab guest stock and accelerated, and compare."),
    "train": ("develop", "Train the forecasters' models."),
    "replay": ("develop", "Run recorded streams through parser, encoder and decoder."),
}
"""Sub-command (and module) name; the room that its module is in, and its line in `dwcp-migrate --help`."""

HIDDEN: Final = {"bench": "develop"}
"""Old spellings, which work for one release more and say so: name, and the room of its module."""

EXIT_INTERRUPTED: Final = 130


class LazyGroup(click.Group):
    """A group that imports a sub-command when it is run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the sub-commands in the order of the table, not of the alphabet."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the sub-command's module and return its `command`."""
        del ctx
        room = COMMANDS[cmd_name][0] if cmd_name in COMMANDS else HIDDEN.get(cmd_name)
        if room is None:
            return None
        module = import_module(f"{__name__}.{room}.{cmd_name}")
        found: click.Command = module.command
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of sub-commands without importing them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="dwcp-migrate", prog_name="dwcp-migrate")
def root() -> None:
    """Make `virsh migrate` several times faster with stock QEMU and libvirt."""


def main() -> NoReturn:
    """Run the command line and exit."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command line.

    Returns:
        Exit code: 0, 2 for wrong usage, 130 after Ctrl-C, else that of the error's class (see `errors`).

    Raises:
        SystemExit: click's own, with 1, when the reader of our output left (`| head`).
    """
    try:
        # Outside standalone mode click returns the code of ctx.exit(), or else what the command returned.
        code = root.main(arguments, prog_name="dwcp-migrate", standalone_mode=False)
    except DwcpError as error:
        return report(error)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return EXIT_INTERRUPTED
    return code if isinstance(code, int) else 0


def report(error: DwcpError) -> int:
    """Print an error the way virsh does and return its exit code."""
    click.echo(f"error: {error}", err=True)
    if error.hint:
        click.echo(f"hint: {error.hint}", err=True)
    return error.exit_code
