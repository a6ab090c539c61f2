"""The command `flower`: Flower as it comes, with the Batches tab and behind a password."""

import os
import secrets
import sys

import click

from batchord.chains.extras import check_installed
from batchord.commands.options import settings_with
from batchord.output import render
from batchord.producer import Client


@click.command(context_settings={"ignore_unknown_options": True})
@click.option("--port", type=int, default=5555, show_default=True)
@click.option("--address", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def flower(port: int, address: str, options: tuple[str, ...]) -> None:
    """Run Flower with its Batches tab, until Ctrl-C.

    OPTIONS are Flower's own, such as --read_only; `celery flower --help` lists them.

    Unless a login is configured (FLOWER_BASIC_AUTH, --basic_auth, --auth), a password is made and
    told here.
    """
    check_installed("flower", "this command")
    settings = settings_with(None)
    environment = {**os.environ, "BATCHORD_REDIS_URL": settings.url()}
    Client(settings=settings).ping()  # raises before anything is started
    if not _has_login(options):
        password = secrets.token_urlsafe(9)
        environment["FLOWER_BASIC_AUTH"] = f"batchord:{password}"
        out = render.console(stderr=True)
        out.print(
            f"Flower   http://{address}:{port} (user batchord, password {password})",
            soft_wrap=True,
        )
    command = [sys.executable, "-P", "-m", "batchord.worker", "flower", f"--address={address}"]
    # In our place: signals reach it, and nothing stands beside it.
    os.execve(sys.executable, [*command, f"--port={port}", *options], environment)  # noqa: S606


def _has_login(options: tuple[str, ...]) -> bool:
    names = [option.split("=", 1)[0].lstrip("-").replace("-", "_") for option in options]
    names += [name.removeprefix("FLOWER_").lower() for name in os.environ if "FLOWER_" in name]
    return not {"basic_auth", "auth", "conf"}.isdisjoint(names)


COMMANDS = (flower,)
