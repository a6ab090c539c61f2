"""Sends one webhook: to a public address, under the name that was allowed, and nowhere else.

The host is looked up once a try. What comes out of that is checked, and only that is connected to,
so that a name which leads elsewhere a moment later leads nowhere. TLS asks for the name and checks
the certificate against it. No redirect is followed, no proxy asked, no cookie kept, and nothing of
the answer read but its status.
"""

import asyncio
import ssl
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from socket import AF_UNSPEC, SOCK_STREAM, AddressFamily
from typing import Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from batchord.ledger.lifecycle.webhook_policy import Undelivered

#: Not for everyone though `ipaddress` takes them for public, in this Python or an older one: a
#: cloud's metadata, protocol assignments, and the relay of 6to4.
_OURS: Final = tuple(map(ip_network, ("168.63.129.16/32", "192.0.0.0/24", "192.88.99.0/24")))
#: All that the Internet uses of IPv6, and what in it is for protocols (Teredo, say), for 6to4 and
#: for documents. Mapped, compatible and translated (NAT64) addresses are outside of it.
_V6: Final = ip_network("2000::/3")
_V6_NOT: Final = tuple(map(ip_network, ("2001::/23", "2002::/16", "3fff::/20")))

#: The receiver's answer by which it wants no webhook ever again.
GONE: Final = 410


def is_allowed(address: str, *, loopback: bool = False) -> bool:
    """Whether webhooks may go to this address: to public ones, and if asked for to loopback."""
    ip: IPv4Address | IPv6Address = ip_address(address)
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    if ip.is_loopback:
        return loopback
    if not ip.is_global or ip.is_multicast or ip.is_reserved:
        return False
    if isinstance(ip, IPv4Address):
        return not any(ip in network for network in _OURS)
    return ip in _V6 and not any(ip in network for network in _V6_NOT)


class _Lookup(AbstractResolver):
    """Looks a host up, and refuses it unless each of its addresses may be connected to."""

    def __init__(self, *, loopback: bool) -> None:
        self._loopback = loopback

    async def resolve(
        self, host: str, port: int = 0, family: AddressFamily = AF_UNSPEC
    ) -> list[ResolveResult]:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, family=family, type=SOCK_STREAM)
        # An IPv6 address has a scope and a flow beside it: neither belongs to a public one.
        addresses = [(str(address[0]), each) for each, _, _, _, address in found]
        if not all(is_allowed(address, loopback=self._loopback) for address, _ in addresses):
            raise Undelivered(f"{host} is at an address that is not public")
        return [
            ResolveResult(hostname=host, host=address, port=port, family=each, proto=0, flags=0)
            for address, each in addresses
        ]

    async def close(self) -> None:
        """Nothing is open."""


async def send(
    url: URL,
    body: bytes,
    headers: Mapping[str, str],
    *,
    tls: ssl.SSLContext,
    timeout: float,
    loopback: bool,
) -> int:
    """POST the body and return the status, which is of 200 to 299.

    `tls` has the authorities that are trusted; names are checked by it.

    Raises:
        Undelivered: it is not known to have been taken.
    """
    connector = aiohttp.TCPConnector(
        resolver=_Lookup(loopback=loopback),
        use_dns_cache=False,
        force_close=True,
        ssl=tls,
    )
    try:
        async with (
            aiohttp.ClientSession(
                connector=connector,
                timeout=aiohttp.ClientTimeout(total=timeout),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
            ) as session,
            session.post(url, data=body, headers=headers, allow_redirects=False) as answer,
        ):
            status = answer.status
    except Undelivered:
        raise
    except Exception as error:  # noqa: BLE001
        # By its kind alone: its text may hold the URL.
        raise Undelivered(_kind(error)) from None
    if not 200 <= status < 300:
        raise Undelivered(f"answered with {status}", final=status == GONE)
    return status


def _kind(error: Exception) -> str:
    match error:
        case TimeoutError():
            return "no answer in time"
        case aiohttp.ClientConnectorCertificateError():
            return "its certificate is refused"
        case aiohttp.ClientConnectorDNSError():
            return "its host is not found"
        case _:
            return type(error).__name__
