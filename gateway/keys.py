"""Keys and tenants: a key is a tenant, known by the SHA-256 of the key alone.

The keys are long and random, so that a plain hash is enough. Without a file of keys there is one,
made at the first start and shown then; its hash lies in BATCHORD_HOME.
"""

import hashlib
import hmac
import re
import secrets
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self

import pydantic

from batchord.chains.errors import BatchordError
from batchord.ledger.core.private_files import create_private, private_folder
from batchord.ledger.lifecycle.webhook_policy import BadWebhook, checked_url
from batchord.ledger.settings import Settings

#: What keys begin with: people, and scanners for secrets, know them by it.
PREFIX: Final = "sk-batchord-"

#: In BATCHORD_HOME: the hash of the key that was made here.
_FILE: Final = "serve-key"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_HASH: Final = re.compile(r"[0-9a-f]{64}")


class BadKeys(BatchordError):
    """The file of keys cannot be used; the message says what to change."""


class Tenant(pydantic.BaseModel, frozen=True, extra="forbid"):
    """The bounds of a key. None: as much as the fleet can."""

    name: str = ""
    #: SHA-256 of the key, in hex.
    sha256: str
    #: Models that its requests may name, as shell patterns (`gpt-*`).
    models: tuple[str, ...] | None = None
    #: The best priority that its batches may have, and have by default: 0 is served first.
    priority: int = pydantic.Field(default=5, ge=0, le=9)
    #: Batches that have not ended, and the requests in them.
    max_batches: int | None = pydantic.Field(default=None, ge=1)
    max_items: int | None = pydantic.Field(default=None, ge=1)
    #: What its batches may cost in a day (UTC).
    budget_usd_per_day: float | None = pydantic.Field(default=None, gt=0)
    #: Where the ends of its batches are told, and the environment variable, of the workers, with
    #: the secret that signs them. None: as all other batches'.
    webhook_url: str | None = None
    webhook_secret_env: str | None = pydantic.Field(default=None, pattern=r"^[A-Za-z_]\w*$")

    @property
    def webhook(self) -> tuple[str, str]:
        """The URL and the variable; empty without."""
        return self.webhook_url or "", self.webhook_secret_env or ""

    @pydantic.model_validator(mode="after")
    def _check_both(self) -> Self:
        # Signed with the deployment's secret, which each tenant would have to be given, a tenant
        # could be told of ends that are not its own.
        if (self.webhook_url is None) is not (self.webhook_secret_env is None):
            raise ValueError("webhook_url and webhook_secret_env go together")
        return self


class Keys:
    """The tenants of a server, by their keys."""

    def __init__(self, tenants: Mapping[str, Tenant], *, has_routes: bool = False) -> None:
        self.tenants = dict(tenants)
        #: Whether the file has routes, too: workers are to read them.
        self.has_routes = has_routes

    def tenant_of(self, key: str) -> Tenant | None:
        """Return the tenant of a key; None: it is nobody's. Takes as long for each key."""
        digest, found = hash_of(key), None
        for tenant in self.tenants.values():
            if hmac.compare_digest(tenant.sha256, digest):
                found = tenant
        return found


def check_webhooks(keys: Keys, settings: Settings) -> None:
    """Raise BadKeys if a tenant's webhook may not be sent; it is never quoted."""
    for name, tenant in keys.tenants.items():
        if tenant.webhook_url is not None:
            try:
                checked_url(tenant.webhook_url, settings)
            except BadWebhook as error:
                raise BadKeys(f"keys.{name}: webhook_url: {error}") from None


def new_key() -> str:
    """Make a key: 256 random bits."""
    return PREFIX + secrets.token_urlsafe(32)


def check_name(name: str) -> None:
    """Raise BadKeys unless a tenant may have this name."""
    if not _NAME.fullmatch(name):
        raise BadKeys(f"{name[:80]!r}: a name is of 1 to 64 letters, digits, _ . and -")


def hash_of(key: str) -> str:
    """Return the hash by which a key is known, in hex."""
    return hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()


def load_keys(path: Path) -> Keys:
    """Read a file of keys: a table `[keys.NAME]` for each, with `sha256` and its limits.

    Raises:
        BadKeys: it cannot be read, or is not what it must be.
    """
    try:
        found = tomllib.loads(path.read_text())
    except OSError as error:
        raise BadKeys(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadKeys(f"{path} is not TOML: {error}") from None
    tables = found.get("keys")
    if others := found.keys() - {"keys", "routes"}:
        raise BadKeys(
            f"{path}: {min(others)[:80]!r} is unknown: write [keys.NAME] or [routes.MODEL]"
        )
    if not isinstance(tables, dict) or not tables:
        raise BadKeys(f'{path} has no keys: write [keys.NAME] and sha256 = "..." for each; {_MAKE}')
    tenants = {name: _tenant(path, name, table) for name, table in tables.items()}
    if len({tenant.sha256 for tenant in tenants.values()}) < len(tenants):
        raise BadKeys(f"{path}: two keys have the same sha256: give each tenant a key of its own")
    return Keys(tenants, has_routes="routes" in found)


_MAKE: Final = "`batchord serve --new-key NAME` makes one"


def _tenant(path: Path, name: str, table: Any) -> Tenant:
    place = f"{path}: keys.{name[:80]}"
    if not _NAME.fullmatch(name):
        raise BadKeys(f"{place}: a name is of 1 to 64 letters, digits, _ . and -")
    if not isinstance(table, dict):
        raise BadKeys(f"{place}: write [keys.{name}]")
    try:
        tenant = Tenant.model_validate({**table, "name": name})
    except pydantic.ValidationError as error:
        # Not the value, which may be the key itself.
        first = error.errors(include_url=False, include_input=False)[0]
        where = "".join(f"{part}: " for part in first["loc"])
        raise BadKeys(f"{place}: {where}{first['msg'].removeprefix('Value error, ')}") from None
    if not _HASH.fullmatch(tenant.sha256):
        raise BadKeys(f"{place}: sha256 must be 64 hex digits, the hash of the key; {_MAKE}")
    return tenant


def own_keys(home: Path) -> tuple[Keys, str | None]:
    """Return the key that was made here, and its text if that was just now: it is shown once.

    Raises:
        BadKeys: its file is damaged, or another server has just made it.
        PrivateFolderError: the folder is not this user's.
    """
    path = home / _FILE
    private_folder(home)
    try:
        key, found = None, path.read_text().strip()
    except FileNotFoundError:
        key = new_key()
        found = hash_of(key)
        try:
            create_private(path, found + "\n")
        except FileExistsError:
            raise BadKeys(f"another server has just made {path}: start again") from None
    if not _HASH.fullmatch(found):
        raise BadKeys(f"{path} is damaged: delete it, and a new key is made at the next start")
    return Keys({"default": Tenant(name="default", sha256=found)}), key
