"""The HTTP server around the app, in this process."""

import ipaddress
import socket
from collections.abc import Callable

import uvicorn

from batchord.chains.errors import BatchordError
from batchord.gateway.app import create_gateway
from batchord.gateway.backend import Backend
from batchord.gateway.keys import Keys, check_webhooks
from batchord.ledger.settings import Settings

#: Seconds for answers that are under way when the server is told to stop.
_GRACE = 10


class CannotListen(BatchordError):
    """The address cannot be listened on; the message says why."""


def is_loopback(host: str) -> bool:
    """Whether the address is reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def serve(
    settings: Settings, keys: Keys, *, host: str, port: int, on_start: Callable[[str], None]
) -> None:
    """Serve until SIGINT or SIGTERM; `on_start` gets the base URL once it is listened on.

    Raises:
        BadKeys: a tenant's webhook may not be sent.
        CannotListen: the address is taken, or not of this machine.
        LedgerUnavailable, FileStoreUnavailable: Redis or the file store cannot be used.
    """
    check_webhooks(keys, settings)
    backend = Backend(settings, keys)
    backend.check()
    backend.start()
    with _listening(host, port) as listening:
        shown = f"[{host}]" if ":" in host else host
        on_start(f"http://{shown}:{listening.getsockname()[1]}/v1")
        config = uvicorn.Config(
            create_gateway(backend),
            log_config=None,
            access_log=False,
            lifespan="on",
            server_header=False,
            timeout_graceful_shutdown=_GRACE,
        )
        uvicorn.Server(config).run(sockets=[listening])


def _listening(host: str, port: int) -> socket.socket:
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, kind, proto)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen(1024)
    except OSError as error:
        raise CannotListen(f"cannot listen on {host}:{port}: {error.strerror}") from None
    return made
