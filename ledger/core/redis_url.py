"""The one reading of a Redis URL that the ledger, Celery's queue and Flower share.

redis-py, kombu, Celery's backend and Flower each parse a URL in their own way. They get one in a
form that all of them read alike; a URL that has no such form is refused.
"""

import re
from ipaddress import AddressValueError, IPv6Address
from typing import Final, NoReturn
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

from batchord.ledger.errors import BadRedisURL

FORM: Final = "redis://[user:password@]host:port/0"
ESCAPE: Final = "percent-encode what is special in the password (@ is %40, / %2F, # %23, ? %3F)"

_ONE_SERVER: Final = "give the URL of one server, or of a proxy that leads to the one of now"
_NO_SENTINEL: Final = f"Redis Sentinel is not supported: {_ONE_SERVER}"
_NO_CLUSTER: Final = (
    f"Redis Cluster is not supported, as a batch's keys lie together: {_ONE_SERVER}"
)
_NO_BROKER: Final = f"the queue is in the ledger's Redis or Valkey, no other broker: write {FORM}"
_NO_SOCKET: Final = f"Unix sockets are not supported: have the server listen, and write {FORM}"

#: Scheme -> why a URL of it is refused, and what to write instead.
SCHEMES: Final = {
    "sentinel": _NO_SENTINEL,
    "redis+sentinel": _NO_SENTINEL,
    "rediss+sentinel": _NO_SENTINEL,
    "redis-sentinel": _NO_SENTINEL,
    "redis+cluster": _NO_CLUSTER,
    "rediss+cluster": _NO_CLUSTER,
    "redis-cluster": _NO_CLUSTER,
    "cluster": _NO_CLUSTER,
    "unix": _NO_SOCKET,
    "socket": _NO_SOCKET,
    "redis+socket": _NO_SOCKET,
    "valkey": f"Valkey speaks as Redis: write {FORM}",
    "valkeys": f"Valkey speaks as Redis: write {FORM.replace('redis:', 'rediss:')}",
    **dict.fromkeys(
        ("amqp", "amqps", "pyamqp", "sqs", "memory", "kafka", "filesystem"), _NO_BROKER
    ),
}

#: Option of the query -> what to do instead; any other than these and TLS's is unknown.
OPTIONS: Final = {
    "protocol": "leave it out: each client chooses its own",
    "socket_timeout": "set BATCHORD_SOCKET_TIMEOUT instead",
    "socket_connect_timeout": "set BATCHORD_SOCKET_TIMEOUT instead",
    "timeout": "set BATCHORD_SOCKET_TIMEOUT instead",
    "visibility_timeout": "set BATCHORD_VISIBILITY_TIMEOUT instead",
    "global_keyprefix": "set BATCHORD_NAMESPACE and BATCHORD_QUEUE instead",
    "virtual_host": "write the number of the database as the path: /3",
}

#: TLS's options that every client knows -> the values that each of them understands.
TLS: Final = {
    "ssl_cert_reqs": r"required|optional|none",
    "ssl_check_hostname": r"true|false",
    "ssl_ca_certs": r".+",
    "ssl_certfile": r".+",
    "ssl_keyfile": r".+",
}


def canonical(text: str) -> str:
    """Return the URL in the form that every client reads alike.

    It has a host, a port, a database as its path, user and password percent-encoded, and in its
    query TLS's options alone. A `rediss://` URL asks for the certificate to be checked, unless it
    says something else: redis-py would check it, kombu would not, and Celery would refuse the URL.

    Raises:
        BadRedisURL: there is no such form; the message names the cure, and quotes no secret.
    """
    parts = _split(text.strip())
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    options = _options(parts)
    database = _database(parts, options.pop("db", None))
    user, password = options.pop("username", user), options.pop("password", password)
    login = f"{quote(user, safe='')}:{quote(password, safe='')}".rstrip(":")
    tls = _tls(parts.scheme, options)
    query = f"?{urlencode(tls, quote_via=quote, safe='/')}" if tls else ""
    server = f"{_host(parts)}:{parts.port or 6379}"
    return f"{parts.scheme}://{login}{'@' if login else ''}{server}/{database}{query}"


def server_of(url: str) -> str:
    """Return host and port of a URL that `canonical` has returned."""
    return urlsplit(url).netloc.rpartition("@")[2]


def database_of(url: str) -> str:
    """Return the number of the database of a URL that `canonical` has returned."""
    return urlsplit(url).path.removeprefix("/")


def _refuse(why: str) -> NoReturn:
    # Never with what was given, nor with the error that quotes it: a password is in it.
    raise BadRedisURL(f"BATCHORD_REDIS_URL: {why}") from None


def _split(text: str) -> SplitResult:
    scheme, found, rest = text.partition("://")
    if not text:
        _refuse(f"it is empty: unset it, or write {FORM}")
    if not found or not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme):
        _refuse(f"it is no Redis URL: write {FORM}")
    if scheme.lower() not in ("redis", "rediss"):
        _refuse(SCHEMES.get(scheme.lower(), f"it is no Redis URL: write {FORM}"))
    if re.search(r"[\s\x00-\x1f\x7f]", text):
        _refuse(f"there is a space in it: take it out, or {ESCAPE}")
    netloc = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" in rest[len(netloc) :] or "#" in rest:
        _refuse(f"it cannot be read: {ESCAPE}")
    if re.search(r"[,;]", netloc.rpartition("@")[2]):
        _refuse(f"it names several servers: {_ONE_SERVER}")
    try:
        parts = urlsplit(text)
        if parts.port == 0:
            raise ValueError
    except ValueError:
        _refuse(
            f"host or port cannot be read: write {FORM} with a port from 1 to 65535, an IPv6 "
            f"address in brackets (redis://[::1]:6379/0), and {ESCAPE}"
        )
    return parts


def _host(parts: SplitResult) -> str:
    host = parts.hostname or "localhost"
    if re.fullmatch(r"[\w.-]+", host):
        return host
    try:
        return f"[{IPv6Address(host)}]"
    except AddressValueError:
        _refuse(f"its host is no name and no address: write {FORM}, and {ESCAPE}")


def _options(parts: SplitResult) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name in found:
            _refuse("an option is there twice: leave one of the two out")
        if name not in ("db", "username", "password", *TLS):
            _refuse_option(name)
        if not value:
            _refuse(f"the option {name} has no value: leave it out, or give it one")
        found[name] = value
    if ("password" in found and parts.password) or ("username" in found and parts.username):
        _refuse("user or password is there twice: leave the option out")
    return found


def _refuse_option(name: str) -> NoReturn:
    # What is no word of a client's may be a part of an unescaped password.
    if name in OPTIONS:
        _refuse(f"the option {name} is not supported; {OPTIONS[name]}")
    known = ", ".join(("db", "username", "password", *TLS))
    _refuse(f"it has an unknown option: leave it out (known are {known}), or {ESCAPE}")


def _database(parts: SplitResult, option: str | None) -> int:
    path = re.fullmatch(r"/?([0-9]{0,9})/?", parts.path)
    if path is None or (option is not None and not re.fullmatch(r"[0-9]{1,9}", option)):
        _refuse(f"its path is the number of a database, 0 for the first: write {FORM}")
    if option is not None and path[1] and int(path[1]) != int(option):
        _refuse("it names two databases: leave the option db out")
    return int(option or path[1] or 0)


def _tls(scheme: str, options: dict[str, str]) -> dict[str, str]:
    if scheme == "redis":
        for name in options:
            _refuse(f"the option {name} is for TLS: write rediss://, or leave it out")
        return {}
    found = {name: value.lower() if "|" in TLS[name] else value for name, value in options.items()}
    for name, value in found.items():
        if not re.fullmatch(TLS[name], value):
            _refuse(f"the option {name} is one of {TLS[name].replace('|', ', ')}")
    return {**found, "ssl_cert_reqs": found.get("ssl_cert_reqs", "required")}
