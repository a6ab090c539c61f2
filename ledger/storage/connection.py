"""The connection to Redis: the one module that imports its client, and translates its errors."""

import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.commands.core import Script

from batchord.ledger.core.redis_url import server_of
from batchord.ledger.core.scripts import Call, script
from batchord.ledger.errors import LedgerRefused, LedgerUnreachable
from batchord.ledger.settings import Settings
from batchord.ledger.storage.redis_client import Packer, Tries, behind, not_now

#: Retries of one Redis call: for an app, which wants an answer, and for a worker, which waits out
#: a restart of the server (about two minutes) rather than lose what an LLM call has cost.
PROMPT: Final = 2
PATIENT: Final = 120

T = TypeVar("T")


class RedisConnection:
    """Redis, and our scripts on it. Safe to share between threads; connects at its first call.

    Raises:
        BadRedisURL: the URL cannot be used.
        NoServer: no Redis is configured.
    """

    def __init__(self, settings: Settings, *, retries: int = PROMPT) -> None:
        self.settings = settings
        self._refusals = retries if retries > PROMPT else 0
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
            retry=Tries(retries),
        )
        self._scripts: dict[str, Script] = {}
        #: Those of them that the server was told.
        self._loaded: set[str] = set()

    def close(self) -> None:
        """Close every connection."""
        self.redis.close()

    def now(self) -> float:
        """Return the server's time, in seconds since 1970."""
        with self.talking():
            # redis-py types its replies for sync and async clients at once; this one is sync.
            found: Any = self.redis.time()
        seconds, micros = found
        return float(seconds + micros / 1e6)

    @contextmanager
    def talking(self) -> Iterator[None]:
        """Translate Redis errors into `LedgerUnavailable`, most specific first."""
        try:
            yield
        except (redis.AuthenticationError, redis.exceptions.NoPermissionError) as error:
            raise LedgerRefused(
                f"Redis at {self._where()} refuses us ({error}): "
                "check user and password in BATCHORD_REDIS_URL",
                server_wide=True,
            ) from error
        except (redis.ConnectionError, redis.TimeoutError) as error:
            raise LedgerUnreachable(self._unreachable(error)) from error
        except redis.exceptions.InvalidResponse as error:
            raise LedgerUnreachable(
                f"what answers at {self._where()} is no Redis: mend BATCHORD_REDIS_URL"
            ) from error
        except redis.exceptions.OutOfMemoryError as error:
            raise LedgerRefused(
                f"Redis at {self._where()} is full: raise its maxmemory, or purge old batches",
                server_wide=True,
                passes=True,
            ) from error
        except redis.RedisError as error:
            # READONLY, MISCONF and the like: its own words say what to change.
            passes = not_now(error)
            raise LedgerRefused(
                f"Redis at {self._where()} answers: {error}", server_wide=passes, passes=passes
            ) from error

    def ping(self) -> None:
        """Return if Redis answers, else raise `LedgerUnavailable`."""
        with self.talking():
            self.redis.ping()

    def _unreachable(self, error: Exception) -> str:
        url, where = self.settings.url(), self._where()
        if refused := behind(error, ssl.SSLCertVerificationError):
            return (
                f"the certificate of Redis at {where} is refused ({refused.verify_message}): "
                "in BATCHORD_REDIS_URL name the host as its certificate does, and the CA's file as "
                "ssl_ca_certs=/path/to/ca.pem"
            )
        if "ssl_" in url and behind(error, FileNotFoundError):
            return "a file is not there: mend ssl_ca_certs and the like in BATCHORD_REDIS_URL"
        cure = "start it, or mend BATCHORD_REDIS_URL"
        if url.startswith("rediss:"):
            cure += " (redis:// if it speaks no TLS)"
        return f"cannot reach Redis at {where}: {cure}"

    def _where(self) -> str:
        return server_of(self.settings.url())

    def run(self, name: str, keys: Sequence[str], *args: str | int | float | bytes) -> Any:
        """Run `ledger/lua/*/NAME.lua`, one transition, and return its answer."""
        registered = self._script(name)
        with self.talking():
            return self._accepted(lambda: registered(keys=keys, args=args))

    def run_all(self, calls: Sequence[Call]) -> list[Any]:
        """Run several transitions in one round trip; one that failed raises after all have run."""
        answers = self.run_each(calls)
        for answer in answers:
            if isinstance(answer, LedgerRefused):
                raise answer
        return answers

    def run_each(self, calls: Sequence[Call]) -> list[Any]:
        """Run several transitions in one round trip, and return the answer to each.

        In the place of an answer stands a `LedgerRefused` where that script alone has failed, as
        what is recorded under its keys is damaged.

        Raises:
            LedgerUnavailable: Redis gave no answer, or refuses everybody just now.
        """
        if len(calls) == 1:
            [call] = calls
            try:
                return [self.run(call.name, call.keys, *call.args)]
            except LedgerRefused as refused:
                if refused.server_wide:
                    raise
                return [refused]
        with self.talking():
            return self._accepted(lambda: self._answers(calls))

    def replies(self, pipe: Any) -> list[Any]:
        """Execute a pipeline of reads, and return its replies.

        In the place of a reply stands a `LedgerRefused` where that key is not of the type that it
        must be: what is damaged hides nothing of the others.

        Raises:
            LedgerUnavailable: Redis gave no answer, or refuses everybody just now.
        """
        with self.talking():
            return [self._refusal(each) for each in pipe.execute(raise_on_error=False)]

    def _refusal(self, reply: Any) -> Any:
        """Return the reply, or LedgerRefused for an error of this call alone; raise others."""
        if not isinstance(reply, redis.RedisError):
            return reply
        try:
            with self.talking():
                raise reply
        except LedgerRefused as refused:
            if refused.server_wide:
                raise
            return refused

    def _answers(self, calls: Sequence[Call]) -> list[Any]:
        # Before they are used: a script that the server does not know would run after those that
        # stand behind it, and the order of a round trip counts.
        self._load({call.name for call in calls} - self._loaded)
        answers = self._sent(calls)
        if any(isinstance(answer, redis.exceptions.NoScriptError) for answer in answers):
            # The server was restarted. What did run is not harmed by a repetition.
            self._load({*self._loaded})
            answers = self._sent(calls)
        for answer in answers:
            if isinstance(answer, redis.RedisError) and not_now(answer):
                raise answer
        return [self._refusal(answer) for answer in answers]

    def _load(self, names: Iterable[str]) -> None:
        for name in names:
            self.redis.script_load(self._script(name).script)
            self._loaded.add(name)

    def _accepted(self, do: Callable[[], T]) -> T:
        """Do it again while the server does not accept it just now, as patiently as we are."""
        backoff = ExponentialWithJitterBackoff(base=0.1, cap=1.0)
        tried = 0
        while True:
            try:
                return do()
            except redis.exceptions.ResponseError as error:
                tried += 1
                if tried > self._refusals or not not_now(error):
                    raise
                if isinstance(error, redis.exceptions.ReadOnlyError):
                    # Another one is the master by now: only new connections lead to it.
                    self.redis.connection_pool.disconnect()
                time.sleep(backoff.compute(tried))

    def _sent(self, calls: Sequence[Call]) -> list[Any]:
        with self.redis.pipeline(transaction=False) as pipe:
            for name, keys, args in calls:
                pipe.evalsha(self._script(name).sha, len(keys), *keys, *args)
            return list(pipe.execute(raise_on_error=False))

    def _script(self, name: str) -> Script:
        found = self._scripts.get(name)
        if found is None:
            found = self._scripts[name] = self.redis.register_script(script(name).text)
        return found
