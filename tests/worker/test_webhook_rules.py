"""Webhooks go to hosts that are listed, at public addresses, by https, and nowhere else."""

import asyncio
import logging
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from yarl import URL

from batchord.chains import register
from batchord.ledger.lifecycle.webhook_policy import BadWebhook, Undelivered, check, checked_url
from batchord.ledger.settings import Settings
from batchord.worker.notifications.webhook_sender import is_allowed, send
from tests.support.cli_harness import Shell
from tests.support.harness import CHAINS, Deployment, refused
from tests.support.webhook_receiver import SECRET, Receiver

pytestmark = pytest.mark.timeout(60)

TOKEN = "t0ken5ecret"
HOSTS = ("Hooks.example.com", "hooks.example.com:8443", "127.0.0.1", "2130706433", "[::1]")


@pytest.mark.parametrize(
    "url",
    [
        f"https://hooks.example.com/{TOKEN}",
        f"https://hooks.example.com/{TOKEN}?a=b%20c&d",
        f"https://hooks.example.com:8443/{TOKEN}",
        "https://hooks.example.com",
        "https://hooks.example.com:443/",
    ],
)
def test_what_is_listed_is_allowed(url: str) -> None:
    assert str(checked_url(url, Settings(webhook_hosts=HOSTS))) == url.replace(":443", "")


BAD_URLS = {
    "http": "http://hooks.example.com/",
    "no scheme": "//hooks.example.com/",
    "another scheme": "ftp://hooks.example.com/",
    "a file": "file:///etc/passwd",
    "a host that is not listed": "https://elsewhere.example.com/",
    "a part of a listed host": "https://example.com/",
    "a host below a listed one": "https://a.hooks.example.com/",
    "a listed host as a part": "https://hooks.example.com.evil.example/",
    "a user": "https://user@hooks.example.com/",
    "a user and a password": f"https://user:{TOKEN}@hooks.example.com/",
    "an empty user": "https://@hooks.example.com/",
    "the listed host as the user": "https://hooks.example.com@evil.example/",
    "the listed host as the user, with a port": "https://hooks.example.com:443@evil.example/",
    "a backslash": "https://hooks.example.com\\@evil.example/",
    "a port that is not listed": "https://hooks.example.com:444/",
    "the port of http": "https://hooks.example.com:80/",
    "the port 0": "https://hooks.example.com:0/",
    "a port that is too large": "https://hooks.example.com:65979/",
    "a port that is not a number": "https://hooks.example.com:443x/",
    "a negative port": "https://hooks.example.com:-443/",
    "a fragment": "https://hooks.example.com/#part",
    "an empty fragment": "https://hooks.example.com/#",
    "a dot at the end": "https://hooks.example.com./",
    "upper case": "https://HOOKS.example.com/",
    "a percent in the host": "https://hooks%2eexample.com/",
    "another alphabet": "https://h\u043eoks.example.com/",
    "a wide dot": "https://hooks。example.com/",
    "a space": "https://hooks.example.com/a b",
    "a line break": "https://hooks.example.com/\r\nHost: evil.example",
    "a tab": "https://hooks.exa\tmple.com/",
    "a null": "https://hooks.example.com/\0",
    "no host": "https:///path",
    "no slashes": "https:hooks.example.com/",
    "nothing": "",
    "an address": "https://127.0.0.1/",
    "a decimal address": "https://2130706433/",
    "a hexadecimal address": "https://0x7f000001/",
    "an octal address": "https://0177.0.0.1/",
    "a short address": "https://127.1/",
    "an IPv6 address": "https://[::1]/",
    "a mapped address": "https://[::ffff:127.0.0.1]/",
    "an address with a zone": "https://[fe80::1%25eth0]/",
    "a metadata address": "https://169.254.169.254/latest/meta-data/",
    "a long one": f"https://hooks.example.com/{'x' * 2048}",
}


@pytest.mark.parametrize("name", BAD_URLS)
def test_what_is_not_plainly_a_listed_host_is_refused(name: str) -> None:
    # Even where a careless operator has listed addresses.
    with pytest.raises(BadWebhook) as caught:
        checked_url(BAD_URLS[name], Settings(webhook_hosts=HOSTS))
    assert "\n" not in str(caught.value)
    assert TOKEN not in str(caught.value)


def test_a_batch_with_such_a_webhook_is_refused_and_leaves_no_trace(traceless: Deployment) -> None:
    register("echo", str, replace=True)
    message = refused(traceless, "echo", [1], webhook=f"https://hooks.example.com/{TOKEN}")
    assert message.startswith("webhook: webhooks may not go to hooks.example.com: list it in")
    assert TOKEN not in message
    for webhook in (7, b"https://hooks.example.com/", ["https://hooks.example.com/"]):
        assert "webhook" in refused(traceless, "echo", [1], webhook=webhook)


PUBLIC = ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "2a00:1450:4001::1", "::ffff:8.8.8.8"]
LOOPBACK = ["127.0.0.1", "127.255.0.3", "::1", "::ffff:127.0.0.1", "::ffff:7f00:1"]
NOT_PUBLIC = [
    *("0.0.0.0", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "255.255.255.255"),
    *("169.254.169.254", "169.254.0.1"),  # link-local: metadata of most clouds
    *("100.64.0.1", "100.100.100.200"),  # carrier-grade NAT: metadata of one more
    *("168.63.129.16", "192.0.0.192", "192.0.0.1", "192.88.99.1"),  # and what looks public
    *("192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "240.0.0.1"),
    *("::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "ff0e::1"),
    *("::ffff:10.0.0.1", "::ffff:169.254.169.254", "::ffff:168.63.129.16", "::ffff:0:127.0.0.1"),
    *("::127.0.0.1", "::10.0.0.1", "::8.8.8.8"),  # compatible
    *("64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::a00:1"),  # translated
    *("2002:7f00:1::", "2002:a9fe:a9fe::1"),  # 6to4
    *("2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:db8::1", "2001:10::1"),  # Teredo and others
    *("100::1", "5f00::1", "4000::1", "3fff::1"),
]


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_allowed(address: str) -> None:
    assert is_allowed(address)
    assert is_allowed(address, loopback=True)


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_an_address_that_is_not_public_is_refused(address: str) -> None:
    assert not is_allowed(address)
    assert not is_allowed(address, loopback=True)


@pytest.mark.parametrize("address", LOOPBACK)
def test_loopback_is_for_tests_alone(address: str) -> None:
    assert not is_allowed(address)
    assert is_allowed(address, loopback=True)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def trusted(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    return file


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[list[str]]]:
    """Addresses of names: each look-up of a name takes its next answer, and must have one."""
    known: dict[str, list[list[str]]] = {}
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if host not in known:
            return real(host, port, *args, **kwargs)
        found = known[host].pop(0)
        return [each for address in found for each in real(address, port, *args, **kwargs)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return known


def post(port: int, host: str = "hooks.example.com", *, loopback: bool = True) -> int:
    url = URL(f"https://{host}:{port}/path", encoded=True)
    tls = ssl.create_default_context()
    return asyncio.run(send(url, b"{}", {}, tls=tls, timeout=5, loopback=loopback))


def why_not(*args: Any, **options: Any) -> str:
    with pytest.raises(Undelivered) as caught:
        post(*args, **options)
    return str(caught.value)


def test_a_host_is_looked_up_once_and_its_certificate_checked_by_name(
    authority: trustme.CA, trusted: Path, names: dict[str, list[list[str]]]
) -> None:
    with Receiver(authority, name="hooks.example.com") as receiver:
        # A second look-up would find the name leading elsewhere, and raise.
        names["hooks.example.com"] = [["127.0.0.1"]]
        assert post(receiver.port) == 200
        assert names["hooks.example.com"] == []
        [request] = receiver.received["path"]
        assert request.headers["host"] == f"hooks.example.com:{receiver.port}"
        assert "cookie" not in request.headers


@pytest.mark.parametrize("signed", ["another authority", "another name"])
def test_a_certificate_that_is_not_the_hosts_is_refused(
    authority: trustme.CA, trusted: Path, names: dict[str, list[list[str]]], signed: str
) -> None:
    names["hooks.example.com"] = [["127.0.0.1"]]
    signer = trustme.CA() if signed == "another authority" else authority
    name = "hooks.example.com" if signed == "another authority" else "elsewhere.example.com"
    with Receiver(signer, name=name) as receiver:
        assert why_not(receiver.port) == "its certificate is refused"
        assert receiver.received == {}


@pytest.mark.parametrize(
    "addresses",
    [
        ["10.0.0.1"],
        ["169.254.169.254"],
        ["::ffff:169.254.169.254"],
        ["fd00:ec2::254"],
        # One bad address is enough: which of them is called is for nobody to choose.
        ["127.0.0.1", "10.0.0.1"],
        ["8.8.8.8", "192.168.0.1"],
    ],
    ids=str,
)
def test_a_name_that_leads_to_a_private_address_is_refused(
    authority: trustme.CA,
    trusted: Path,
    names: dict[str, list[list[str]]],
    addresses: list[str],
) -> None:
    names["hooks.example.com"] = [addresses]
    with Receiver(authority, name="hooks.example.com") as receiver:
        assert "not public" in why_not(receiver.port)
        assert receiver.received == {}


def test_localhost_is_refused_unless_it_is_allowed(authority: trustme.CA, trusted: Path) -> None:
    with Receiver(authority) as receiver:
        assert "not public" in why_not(receiver.port, "localhost", loopback=False)
        assert receiver.received == {}
        assert post(receiver.port, "localhost") == 200


def test_no_proxy_is_asked(
    authority: trustme.CA,
    trusted: Path,
    names: dict[str, list[list[str]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    names["hooks.example.com"] = [["127.0.0.1"]]
    with Receiver(authority, name="hooks.example.com") as receiver:
        assert post(receiver.port) == 200


def test_an_error_says_its_kind_and_not_where(
    trusted: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG), socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        refusing = listening.getsockname()[1]
        assert TOKEN not in why_not(refusing, "localhost")
        assert why_not(refusing, "nowhere.invalid") == "its host is not found"


def settings(**given: Any) -> Settings:
    return Settings.model_validate(given)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"webhook_url": "http://h.example/"}, "BATCHORD_WEBHOOK_URL: webhooks are sent by https"),
        ({"webhook_url": "https://h.example/"}, "list it in BATCHORD_WEBHOOK_HOSTS"),
        (
            {"webhook_url": "https://h.example/", "webhook_hosts": ("h.example",)},
            "needs a BATCHORD_WEBHOOK_SECRET",
        ),
        (
            {
                "webhook_url": "https://h.example/",
                "webhook_hosts": ("h.example",),
                "webhook_secret": "",
            },
            "needs a BATCHORD_WEBHOOK_SECRET",
        ),
        ({"webhook_secret": "whsec_no base64"}, "BATCHORD_WEBHOOK_SECRET: whsec_ and 24 to 64"),
        ({"webhook_secret": "whsec_c2hvcnQ="}, "24 to 64 bytes"),
        ({"webhook_secret": f"{SECRET} whsec_c2hvcnQ="}, "24 to 64 bytes"),
    ],
    ids=range(7),
)
def test_settings_that_cannot_work_are_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(BadWebhook) as caught:
        check(settings(**given))
    assert says in str(caught.value)
    assert "c2hvcnQ" not in str(caught.value)


def test_what_is_set_to_nothing_is_not_set() -> None:
    nothing = settings(webhook_url="", webhook_secret="", webhook_hosts="")
    check(nothing)
    assert nothing.webhook_hosts == ()


def test_settings_show_neither_secret_nor_url() -> None:
    whole = settings(
        webhook_url=f"https://h.example/{TOKEN}",
        webhook_secret=f"{SECRET} {SECRET}",
        webhook_hosts=("h.example",),
    )
    check(whole)
    for text in (repr(whole), str(whole), whole.model_dump_json()):
        assert TOKEN not in text
        assert SECRET not in text


@pytest.fixture
def shell(deployment: Deployment, tmp_path: Path) -> Iterator[Shell]:
    shell = Shell(tmp_path / "shell", BATCHORD_REDIS_URL=deployment.url)
    yield shell
    shell.close()


def test_a_worker_does_not_start_with_settings_that_cannot_work(
    shell: Shell, deployment: Deployment
) -> None:
    env = {"BATCHORD_WEBHOOK_URL": f"https://h.example/{TOKEN}", "BATCHORD_CHAINS": CHAINS}
    answer = shell.run("worker", env=env)
    assert answer.code == 2
    assert "Error: BATCHORD_WEBHOOK_URL: webhooks may not go to h.example" in answer.err
    assert TOKEN not in answer.err
    worker = deployment.start_worker(wait=False, env=env)
    assert worker.wait(20) != 0
    assert "BATCHORD_WEBHOOK_HOSTS" in worker.log.splitlines()[-1]
    assert TOKEN not in worker.log
