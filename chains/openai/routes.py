"""Routes: by the model that a request names, where it is posted, with which key and limit.

A route names the environment variable of its key, and never has the key itself. Workers read the
table as they start; without one, all requests go to OPENAI_BASE_URL.
"""

import os
import tomllib
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

import pydantic

from batchord.chains.errors import BatchordError, ChainError, OperatorNeeded
from batchord.chains.explain import mask_variable
from batchord.chains.ratelimit.limits import RateLimit

#: What a server without keys is sent.
_NO_KEY: Final = "none"

_EXAMPLE: Final = (
    '[routes."llama-*"] with base_url = "http://host:8000/v1", and if need be key_env, model, rpm, '
    "tpm, concurrency"
)


class BadRoutes(BatchordError):
    """The table of routes cannot be used; the message says what to change."""


class Route(pydantic.BaseModel, frozen=True, extra="forbid"):
    """Where the requests for a model go."""

    #: The model that requests name, or a shell pattern of it.
    pattern: str
    base_url: pydantic.HttpUrl
    #: The environment variable, of the workers, that has the key; None: the server has no keys.
    key_env: str | None = pydantic.Field(default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    #: What the server calls the model; None: as the request does.
    model: str | None = None
    #: As in `RateLimit`, for all requests that take this route together.
    rpm: int | None = pydantic.Field(default=None, ge=1)
    tpm: int | None = pydantic.Field(default=None, ge=1)
    concurrency: int | None = pydantic.Field(default=None, ge=1)

    @property
    def url(self) -> str:
        """The base URL as the SDK takes it."""
        return str(self.base_url).rstrip("/")

    @property
    def limit(self) -> RateLimit | None:
        """The limit of the route; None without numbers."""
        if self.rpm is None and self.tpm is None and self.concurrency is None:
            return None
        return RateLimit(f"route:{self.pattern}", self.rpm, self.tpm, self.concurrency)

    def key(self) -> str:
        """Return the key.

        Raises:
            OperatorNeeded: its variable is not set where this worker is.
        """
        if self.key_env is None:
            return _NO_KEY
        key = os.environ.get(self.key_env)
        if not key:
            raise OperatorNeeded(
                f"no API key for the route {self.pattern!r}: set {self.key_env} where the workers "
                "are",
                code="authentication_error",
            )
        return key

    def body_of(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the body with the model's name there."""
        return body if self.model is None else {**body, "model": self.model}


Routes = tuple[Route, ...]

_routes: Routes | None = None


def load(path: Path | None) -> Routes | None:
    """Read the tables `[routes.MODEL]` of a TOML file; None without a path.

    Raises:
        BadRoutes: it cannot be read, or is not what it must be.
    """
    if path is None:
        return None
    try:
        found = tomllib.loads(path.read_text()).get("routes")
    except OSError as error:
        raise BadRoutes(f"BATCHORD_ROUTES: cannot read {path} ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadRoutes(f"BATCHORD_ROUTES: {path} is not TOML: {error}") from None
    if not isinstance(found, dict) or not found:
        raise BadRoutes(f"BATCHORD_ROUTES: {path} has no routes: write {_EXAMPLE}")
    return tuple(_route(path, name, table) for name, table in found.items())


def _route(path: Path, name: str, table: Any) -> Route:
    place = f"BATCHORD_ROUTES: {path}: routes.{name[:80]!r}"
    if not isinstance(table, dict):
        raise BadRoutes(f"{place} is no table: write {_EXAMPLE}")
    try:
        return Route.model_validate({**table, "pattern": name})
    except pydantic.ValidationError as error:
        # Not the value: someone may have written a key.
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise BadRoutes(f"{place}: {where}: {first['msg']}; write {_EXAMPLE}") from None


def use(routes: Routes | None) -> None:
    """Route the requests of this process from now on by this table."""
    global _routes
    _routes = routes
    for route in routes or ():
        if route.key_env is not None:
            mask_variable(route.key_env)


def in_use() -> bool:
    """Return whether requests of this process go by a table: its routes have keys of their own."""
    return _routes is not None


def route_of(model: str) -> Route | None:
    """Return the route of a model: the one of its name, else the first whose pattern fits.

    None without a table: it goes to OPENAI_BASE_URL.

    Raises:
        ChainError: `model_not_found`, no route fits.
    """
    if _routes is None:
        return None
    for route in _routes:
        if route.pattern == model:
            return route
    for route in _routes:
        if fnmatchcase(model, route.pattern):
            return route
    raise ChainError(
        f"The model {model[:200]!r} does not exist here: no route of the fleet's leads to it",
        code="model_not_found",
    )
