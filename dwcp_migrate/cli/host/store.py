"""`dwcp-migrate store`: the page store of this host: what it holds, images added, pages removed, wiped, verified.

It works on the store's directory itself, as root or as the agent's user; the agent need not run.
"""

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dwcp_migrate.cli.support import answers, output
from dwcp_migrate.cli.support.options import json_option
from dwcp_migrate.config import DEFAULT_PATH, Config, load
from dwcp_migrate.errors import ConfigError
from dwcp_migrate.units import format_bytes

if TYPE_CHECKING:
    from dwcp_migrate.store.shelf import Shelf

config_option = click.option(
    "--config", "config_path", type=click.Path(path_type=Path), default=DEFAULT_PATH, help="Configuration file."
)


def opened(config: Config) -> "Shelf":
    """Open the store.

    Raises:
        ConfigError: it is off.
        StoreError: it cannot be used, or the agent has not made it yet.
    """
    from dwcp_migrate.store.shelf import Shelf

    if not config.store.bytes_max:
        raise ConfigError("this host keeps no pages", hint="set store.bytes_max, see docs/known-pages.md")
    return Shelf(config.store_directory, config.store.bytes_max, make=False)


@click.group()
def command() -> None:
    """Look at and change the pages that this host keeps of guests that migrated."""


@command.command()
@config_option
@json_option
def status(*, config_path: Path, as_json: bool) -> None:
    """Show what the store holds, volume by volume, the last used first."""
    shelf = opened(load(config_path))
    rows = [
        answers.StoreVolume(
            volume=found.name,
            scope=found.head.scope,
            fill=found.head.fill,
            pages=found.head.pages,
            held_bytes=found.held_bytes,
            used_at=found.used_at,
            image=found.head.image,
        )
        for found in shelf.volumes()
    ]
    held = shelf.held_bytes()
    view = answers.StoreContents(
        directory=str(shelf.root),
        bytes_max=shelf.bytes_max,
        held_bytes=held,
        pages=sum(row.pages for row in rows),
        volumes=rows,
    )
    if as_json:
        click.echo(output.as_json(view))
        return
    click.echo(
        f"{shelf.root}: {format_bytes(held)} of {format_bytes(shelf.bytes_max)}, "
        f"{output.counted(view.pages, 'page', 'pages')} in {output.counted(len(rows), 'volume', 'volumes')}"
    )
    for row in rows:
        age_s = max(0.0, time.time() - row.used_at)
        click.echo(
            f"  {row.scope}: {row.pages} pages {row.fill}, {format_bytes(float(row.held_bytes))}, "
            f"used {age_s:.0f} s ago{' ' if row.image else ''}{row.image}"
        )


@command.command()
@click.argument("image", type=click.Path(path_type=Path))
@click.option("--scope", required=True, help="Whose guests may use it: a name of store.scopes, or domain:UUID.")
@config_option
@json_option
def add(*, image: Path, scope: str, config_path: Path, as_json: bool) -> None:
    """Name the blocks of IMAGE (raw or qcow2), so that guests full of its files need not send them here.

    The image stays where it is and must stay as it is; the agent's user must be able to read it. It is read once, at
    low priority: some seconds a gigabyte.
    """
    from dwcp_migrate.store.image import add_image

    os.nice(19)
    pages = add_image(opened(load(config_path)), scope, image, time.time())
    if as_json:
        click.echo(output.as_json(answers.StoredImage(image=str(image), scope=scope, pages=pages)))
    else:
        click.echo(f"{image}: {output.counted(pages, 'block', 'blocks')} named for {scope}")


@command.command()
@click.option("--scope", default="", help="Remove what was kept for these guests.")
@click.option("--image", default="", help="Remove an image's names; the image stays.")
@config_option
@json_option
def remove(*, scope: str, image: str, config_path: Path, as_json: bool) -> None:
    """Remove what was kept for a scope, or of an image."""
    if bool(scope) == bool(image):
        raise click.UsageError("give --scope or --image")
    count = opened(load(config_path)).remove(scope=scope, image=image)
    _say_removed(count, as_json=as_json)


@command.command()
@config_option
@json_option
def wipe(*, config_path: Path, as_json: bool) -> None:
    """Remove all pages, and the secret that their names are made with."""
    count = opened(load(config_path)).wipe()
    _say_removed(count, as_json=as_json)


def _say_removed(count: int, *, as_json: bool) -> None:
    told = output.as_json(answers.VolumesRemoved(removed=count))
    click.echo(told if as_json else f"removed {output.counted(count, 'volume', 'volumes')}")


@command.command()
@config_option
@json_option
@click.pass_context
def verify(context: click.Context, *, config_path: Path, as_json: bool) -> None:
    """Read everything and compare it with its names; what does not fit is removed, and the exit code is 15."""
    from dwcp_migrate.errors import StoreError
    from dwcp_migrate.store.reader import verify_store as read_all

    good, wrong = read_all(opened(load(config_path)))
    if as_json:
        click.echo(output.as_json(answers.StoreVerified(good_pages=good, removed=wrong)))
    else:
        for line in wrong:
            click.echo(f"removed: {line}", err=True)
        click.echo(f"{output.counted(good, 'page', 'pages')} as they should be")
    context.exit(StoreError.exit_code if wrong else 0)
