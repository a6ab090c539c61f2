"""The connection to Redis: the one module that imports its client, and translates its errors."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.commands.core import Script
from redis.connection import HiredisRespSerializer
from redis.retry import Retry

from ledger.errors import LedgerUnavailable
from ledger.settings import Settings

#: Retries of one Redis call: for an app, which wants an answer, and for a worker, which waits out
#: a restart of the server (about half a minute) rather than lose what an LLM call has cost.
PROMPT: Final = 2
PATIENT: Final = 30


class Packer(HiredisRespSerializer):
    """Packs commands of text and bytes only: numbers are written out here.

    hiredis asks Python for a number's text and does not look whether it got one. Python looks for
    signals there, so that Ctrl-C in that moment is a segmentation fault (hiredis 3.5, src/pack.c).
    """

    def pack(self, *args: Any) -> list[bytes]:
        """Return the command as it goes over the wire."""
        texts = [arg if arg.__class__ in _SAFE else _text(arg) for arg in args]
        packed: list[bytes] = super().pack(*texts)  # type: ignore[arg-type]  # its annotation means each
        return packed


_SAFE: Final = (str, bytes)


def _text(value: Any) -> Any:
    return repr(value) if isinstance(value, (int, float)) else value


class Call(NamedTuple):
    """One run of a script."""

    name: str
    keys: Sequence[str]
    args: Sequence[str | int | float | bytes]


class Connection:
    """Redis, and our scripts on it. Safe to share between threads; connects at its first call.

    Raises:
        LedgerUnavailable: the URL is none.
    """

    def __init__(self, settings: Settings, *, retries: int = PROMPT) -> None:
        self.settings = settings
        try:
            self.redis: redis.Redis = redis.Redis.from_url(
                settings.url(),
                decode_responses=True,
                encoding_errors="surrogateescape",  # packed texts are bytes
                socket_timeout=settings.socket_timeout,
                socket_connect_timeout=min(5.0, settings.socket_timeout),
                socket_keepalive=True,
                health_check_interval=10,
                max_connections=None,
                command_packer=Packer(),
                retry=Retry(ExponentialWithJitterBackoff(base=0.1, cap=1.0), retries),
            )
        except ValueError:
            # Neither the URL nor the error, which quotes it: there is a password in it.
            raise LedgerUnavailable(
                "BATCHORD_REDIS_URL is no Redis URL: write redis://[user:password@]host:port/0"
            ) from None
        self._scripts: dict[str, Script] = {}

    def close(self) -> None:
        """Close every connection."""
        self.redis.close()

    @contextmanager
    def talking(self) -> Iterator[None]:
        """Translate Redis errors into `LedgerUnavailable`, most specific first."""
        try:
            yield
        except (redis.AuthenticationError, redis.exceptions.NoPermissionError) as error:
            raise LedgerUnavailable(
                f"Redis at {self._where()} refuses us ({error}): "
                "check user and password in BATCHORD_REDIS_URL"
            ) from error
        except (redis.ConnectionError, redis.TimeoutError) as error:
            raise LedgerUnavailable(
                f"cannot reach Redis at {self._where()}: start it, or mend BATCHORD_REDIS_URL"
            ) from error
        except redis.exceptions.InvalidResponse as error:
            raise LedgerUnavailable(
                f"what answers at {self._where()} is no Redis: mend BATCHORD_REDIS_URL"
            ) from error
        except redis.exceptions.OutOfMemoryError as error:
            raise LedgerUnavailable(
                f"Redis at {self._where()} is full: raise its maxmemory, or purge old batches"
            ) from error
        except redis.RedisError as error:
            # READONLY, MISCONF and the like: its own words say what to change.
            raise LedgerUnavailable(f"Redis at {self._where()} answers: {error}") from error

    def ping(self) -> None:
        """Return if Redis answers, else raise `LedgerUnavailable`."""
        with self.talking():
            self.redis.ping()

    def _where(self) -> str:
        parts = urlsplit(self.settings.url())
        return f"{parts.hostname or parts.path}:{parts.port or 6379}"

    def run(self, name: str, keys: Sequence[str], *args: str | int | float | bytes) -> Any:
        """Run `ledger/lua/NAME.lua`, one transition, and return its answer."""
        script = self._script(name)
        with self.talking():
            return script(keys=keys, args=args)

    def run_all(self, calls: Sequence[Call]) -> list[Any]:
        """Run several transitions in one round trip; one that failed raises after all have run."""
        if len(calls) == 1:
            [call] = calls
            return [self.run(call.name, call.keys, *call.args)]
        with self.talking():
            answers = self._sent(calls)
            if any(isinstance(answer, redis.exceptions.NoScriptError) for answer in answers):
                # The server is new, or was restarted. What did run is not harmed by a repetition.
                for name in {call.name for call in calls}:
                    self.redis.script_load(self._script(name).script)
                answers = self._sent(calls)
            for answer in answers:
                if isinstance(answer, redis.RedisError):
                    raise answer
            return answers

    def _sent(self, calls: Sequence[Call]) -> list[Any]:
        with self.redis.pipeline(transaction=False) as pipe:
            for name, keys, args in calls:
                pipe.evalsha(self._script(name).sha, len(keys), *keys, *args)
            return list(pipe.execute(raise_on_error=False))

    def _script(self, name: str) -> Script:
        script = self._scripts.get(name)
        if script is None:
            text = (files("ledger") / "lua" / f"{name}.lua").read_text()
            script = self._scripts[name] = self.redis.register_script(text)
        return script
