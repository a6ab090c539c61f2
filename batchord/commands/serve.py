"""The command `serve`: OpenAI's Files and Batch API in front of your own fleet."""

from pathlib import Path

import click

from batchord.chains.extras import MissingExtra
from batchord.chains.openai import routes
from batchord.ledger.settings import Settings
from batchord.output import render


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option("--port", type=click.IntRange(0, 65_535), default=8000, show_default=True)
@click.option(
    "--keys",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A TOML file of keys, [keys.NAME]; needed to listen on anything but loopback.",
)
@click.option("--new-key", metavar="NAME", help="Make a key, show it and its lines, and end.")
def serve(host: str, port: int, path: Path | None, new_key: str | None) -> None:
    """Serve OpenAI's Files and Batch API, until Ctrl-C: the official SDKs are the clients.

    Workers run the requests, as `batchord worker` and `batchord up` start them. Without --keys
    there is one key, made at the first start and shown then.
    """
    try:
        from batchord.gateway import keys as gateway_keys
        from batchord.gateway import server
    except ImportError as error:
        raise MissingExtra(str(error.name), "this command") from None
    if new_key is not None:
        gateway_keys.check_name(new_key)
        key = gateway_keys.new_key()
        click.echo(f"# The key, which is kept nowhere: {key}")
        click.echo(f'[keys.{new_key}]\nsha256 = "{gateway_keys.hash_of(key)}"')
        return
    if path is None and not server.is_loopback(host):
        raise click.UsageError(
            f"anybody who reaches {host} could try: give --keys, a file of keys "
            "(`batchord serve --new-key NAME` makes one), or listen on 127.0.0.1"
        )
    settings = Settings()
    routes.load(settings.routes)
    out = render.console(stderr=True)
    made = None
    if path is not None:
        keys = gateway_keys.load_keys(path)
        if keys.has_routes and settings.routes is None:
            raise click.UsageError(
                f"{path} has routes, which the workers are to know: set BATCHORD_ROUTES to it, "
                "here and where they are"
            )
    else:
        keys, made = gateway_keys.own_keys(settings.home)

    def started(url: str) -> None:
        if made is not None:
            out.print(f"Key      {made} (shown this once)", soft_wrap=True)
        out.print(f"Serving  {url}", soft_wrap=True)

    server.serve(settings, keys, host=host, port=port, on_start=started)


COMMANDS = (serve,)
