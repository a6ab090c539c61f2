"""`rediss://`: the certificate is checked by whatever of ours connects, unless told otherwise."""

import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import trustme
from pydantic import SecretStr

from batchord.chains import register
from batchord.ledger.broker.celery_app import create_app
from batchord.ledger.errors import LedgerUnavailable
from batchord.ledger.models import BatchStatus
from batchord.ledger.settings import Settings
from batchord.producer import Client
from tests.conftest import Deploy
from tests.support.harness import Deployment, wait_until
from tests.support.tls_proxy import HOST, TLSProxy

pytestmark = pytest.mark.timeout(60)

Serve = Callable[..., TLSProxy]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> Path:
    """The certificate of the authority that signs the proxy's."""
    file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    return file


@pytest.fixture
def serve(valkey_port: int, authority: trustme.CA) -> Iterator[Serve]:
    """Put TLS in front of the session's Valkey."""
    with ExitStack() as stack:

        def serve(signer: trustme.CA = authority, **options: str) -> TLSProxy:
            return stack.enter_context(TLSProxy(valkey_port, signer, **options))

        yield serve


def url(proxy: TLSProxy, deployment: Deployment, *query: str) -> str:
    """The URL of the deployment's database, by TLS."""
    database = deployment.url.rsplit("/", 1)[1]
    return f"rediss://{HOST}:{proxy.port}/{database}" + "?" * bool(query) + "&".join(query)


def refusal(address: str, **settings: Any) -> str:
    """Return the one line that a client says which does not get through."""
    register("secret", str, replace=True)
    options = Settings(redis_url=SecretStr(address), **settings)
    with Client(settings=options) as client, pytest.raises(LedgerUnavailable) as caught:
        client.submit("secret", ["nobody may read this"])
    message = str(caught.value)
    assert "\n" not in message
    assert "BATCHORD_REDIS_URL" in message
    return message


@pytest.mark.parametrize("more", [(), ("ssl_cert_reqs=required",)])
def test_a_batch_runs_over_tls(
    serve: Serve, deploy: Deploy, ca_file: Path, more: tuple[str, ...]
) -> None:
    proxy = serve()
    safe = deploy(url=url(proxy, deploy(), f"ssl_ca_certs={ca_file}", *more))
    worker = safe.start_worker()
    batch = safe.client.submit("double", range(20))
    assert batch.outputs() == [2 * number for number in range(20)]
    assert batch.wait(10).status is BatchStatus.COMPLETED
    assert "insecure" not in worker.log
    assert proxy.passed > 0


def test_a_certificate_of_another_authority_is_refused(
    deployment: Deployment, serve: Serve, ca_file: Path
) -> None:
    proxy = serve(trustme.CA())
    for query in ([], [f"ssl_ca_certs={ca_file}"]):
        message = refusal(url(proxy, deployment, *query))
        assert f"{HOST}:{proxy.port}" in message
        assert "ssl_ca_certs" in message
    assert proxy.passed == 0


def test_a_certificate_for_another_host_is_refused(
    deployment: Deployment, serve: Serve, ca_file: Path
) -> None:
    proxy = serve(host="elsewhere.example")
    message = refusal(url(proxy, deployment, f"ssl_ca_certs={ca_file}"))
    assert "Hostname mismatch" in message
    assert proxy.passed == 0


def test_a_server_without_tls_is_sent_nothing(deployment: Deployment) -> None:
    # It waits for the end of a line, and we for its part of the handshake.
    message = refusal(deployment.url.replace("redis://", "rediss://"), socket_timeout=0.2)
    assert "redis://" in message
    assert deployment.redis.dbsize() == 0


def test_an_authority_that_is_not_there_is_named(deployment: Deployment, serve: Serve) -> None:
    proxy = serve()
    message = refusal(url(proxy, deployment, "ssl_ca_certs=/nowhere/ca.pem"))
    assert "ssl_ca_certs" in message
    assert proxy.passed == 0


def test_a_worker_refuses_it_too_and_says_nothing_in_the_clear(
    serve: Serve, deploy: Deploy
) -> None:
    proxy, plain = serve(trustme.CA()), deploy()
    worker = plain.start_worker(wait=False, env={"BATCHORD_REDIS_URL": url(proxy, plain)})
    wait_until(lambda: "certificate verify failed" in worker.log, what="the worker refuses")
    wait_until(lambda: "Cannot connect to rediss" in worker.log, what="its queue is refused too")
    assert " ready." not in worker.log
    assert proxy.passed == 0


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("", ssl.CERT_REQUIRED),
        ("?ssl_check_hostname=true", ssl.CERT_REQUIRED),
        ("?ssl_ca_certs=/ca.pem", ssl.CERT_REQUIRED),
        ("?ssl_cert_reqs=none", ssl.CERT_NONE),  # said, and not by default
    ],
)
def test_queue_and_backend_check_the_certificate_by_default(
    query: str, wanted: ssl.VerifyMode
) -> None:
    app = create_app(Settings(redis_url=SecretStr(f"rediss://h:1/0{query}")))
    for connection in (app.connection_for_read(), app.connection_for_write()):
        assert connection.ssl["ssl_cert_reqs"] == wanted
        connection.close()
    assert app.backend.connparams["ssl_cert_reqs"] == wanted
    app.close()


def test_a_certificate_is_not_checked_where_that_is_asked_for(
    deployment: Deployment, serve: Serve
) -> None:
    with Client(url(serve(trustme.CA()), deployment, "ssl_cert_reqs=none")) as client:
        client.ping()
