"""The policy of webhooks: allowed URLs, and signing secrets.

A URL is refused unless it is https, plainly written, and names a host that the operator has listed.
The host's addresses are checked as `webhook_sender` connects to them.
"""

import base64
import binascii
import os
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

#: The variable with the deployment's secret.
SECRET_VARIABLE: Final = "BATCHORD_WEBHOOK_SECRET"  # noqa: S105

#: Printable ASCII, but for what parsers disagree on.
_PLAIN: Final = re.compile(r"[!#-;=?-\[\]_a-z~]+")
#: A host name as in a certificate. Its last part begins with a letter, so that numbers and
#: addresses do not match: 127.1, 0x7f000001, 2130706433.
_HOST: Final = re.compile(
    r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z](?:[a-z0-9-]*[a-z0-9])?"
)


class BadWebhook(BatchordError):
    """A webhook that is not allowed, or not possible with the settings; says what to change."""


class Undelivered(Exception):
    """A try has failed; the message is safe to log."""

    def __init__(self, why: str, *, final: bool = False) -> None:
        super().__init__(why)
        #: True: another try is pointless.
        self.final = final


def checked_url(text: str, settings: Settings) -> URL:
    """Check a webhook's URL and return it parsed. Errors never quote it.

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
        # The sending client's own parser, so that check and use agree.
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
    """Return the deployment's webhook URL, or None.

    Raises:
        BadWebhook: the URL is not allowed, or no signing secret is set.
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


def signers(secret: SecretStr | None, name: str = SECRET_VARIABLE) -> list[Webhook]:
    """Return a signer for each secret that is set; `name`: the variable that has them.

    Raises:
        BadWebhook: a secret is invalid.
    """
    secrets = [] if secret is None else secret.get_secret_value().split()
    return [_signer(each, name) for each in secrets]


def signers_of(name: str) -> list[Webhook]:
    """Return a signer for each secret in an environment variable of this process.

    Raises:
        BadWebhook: it is not set, or a secret is invalid.
    """
    found = signers(SecretStr(os.environ.get(name, "")), name)
    if not found:
        raise BadWebhook(f"{name} is not set where this worker is")
    return found


def _signer(secret: str, name: str) -> Webhook:
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except binascii.Error:
        key = b""
    if len(key) not in KEY_BYTES:
        raise BadWebhook(
            f"{name}: whsec_ and 24 to 64 bytes of base64; make one with "
            "`echo whsec_$(openssl rand -base64 32)`"
        )
    return Webhook(key)
