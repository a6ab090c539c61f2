"""Which webhooks may be sent, and with what they are signed.

A URL is refused unless it is https, plainly written, and names a host that the operator has listed;
where that host's addresses lead is looked at when it is connected to (`webhook_sender`).
"""

import base64
import binascii
import re
from typing import Final

from pydantic import SecretStr
from standardwebhooks import Webhook
from yarl import URL

from batchord.chains.errors import BatchordError
from batchord.ledger.settings import Settings

#: Bytes of a URL, and of a signing key (the specification of Standard Webhooks has 24 to 64).
MOST_URL: Final = 2048
KEY_BYTES: Final = range(24, 65)

HTTPS_PORT: Final = 443

#: Printable ASCII, but for what parsers disagree on.
_PLAIN: Final = re.compile(r"[!#-;=?-\[\]_a-z~]+")
#: A host name as a certificate has it. Its last part begins with a letter, so that no number and no
#: address passes for a name: 127.1, 0x7f000001, 2130706433.
_HOST: Final = re.compile(
    r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z](?:[a-z0-9-]*[a-z0-9])?"
)


class BadWebhook(BatchordError):
    """A webhook that is not allowed, or cannot be sent as things are set; says what to change."""


class Undelivered(Exception):
    """A try has failed; the message is safe to log."""

    def __init__(self, why: str, *, final: bool = False) -> None:
        super().__init__(why)
        #: Whether another try is pointless.
        self.final = final


def checked_url(text: str, settings: Settings) -> URL:
    """Return the URL, if webhooks may go there. Errors never quote it.

    Raises:
        BadWebhook: it is not https, has a user, a password or a fragment, is not plain ASCII, or
            its host is not listed.
    """
    if len(text) > MOST_URL or not _PLAIN.fullmatch(text):
        raise BadWebhook(
            f"a webhook's URL is of at most {MOST_URL:,} plain ASCII characters, others "
            "percent-encoded"
        )
    if not text.startswith("https://"):
        raise BadWebhook("webhooks are sent by https only: write https://host/path")
    if "@" in text.split("/")[2] or "#" in text:
        raise BadWebhook("a webhook's URL has no user, no password and no fragment")
    try:
        # By the parser of the client that will call it, so that no two disagree.
        url = URL(text, encoded=True)
        host, port = url.raw_host or "", url.port
    except ValueError:
        raise BadWebhook("a webhook's URL is invalid: write https://host/path") from None
    if not _HOST.fullmatch(host) or len(host) > 253:
        raise BadWebhook("a webhook's URL names its host by a name in lower case, no address")
    place = host if port == HTTPS_PORT else f"{host}:{port}"
    if place not in [listed.lower() for listed in settings.webhook_hosts]:
        raise BadWebhook(
            f"webhooks may not go to {place}: list it in BATCHORD_WEBHOOK_HOSTS, here and where "
            "the workers are"
        )
    return url


def check(settings: Settings) -> None:
    """Raise BadWebhook if the settings ask for webhooks that cannot be sent."""
    deployment_url(settings)
    signers(settings.webhook_secret)


def deployment_url(settings: Settings) -> str | None:
    """Return where all batches' ends are told, or None.

    Raises:
        BadWebhook: it is set and may not be called, or there is nothing to sign with.
    """
    # Empty is unset: an `.env` has such lines.
    if not settings.webhook_url:
        return None
    text = settings.webhook_url.get_secret_value()
    try:
        checked_url(text, settings)
    except BadWebhook as error:
        raise BadWebhook(f"BATCHORD_WEBHOOK_URL: {error}") from None
    if not signers(settings.webhook_secret):
        raise BadWebhook("BATCHORD_WEBHOOK_URL needs a BATCHORD_WEBHOOK_SECRET to sign with")
    return text


def signers(secret: SecretStr | None) -> list[Webhook]:
    """Return what signs, one for each secret that is set.

    Raises:
        BadWebhook: one is no secret.
    """
    return [] if secret is None else [_signer(each) for each in secret.get_secret_value().split()]


def _signer(secret: str) -> Webhook:
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except binascii.Error:
        key = b""
    if len(key) not in KEY_BYTES:
        raise BadWebhook(
            "BATCHORD_WEBHOOK_SECRET: whsec_ and 24 to 64 bytes of base64; make one with "
            "`echo whsec_$(openssl rand -base64 32)`"
        )
    return Webhook(key)
