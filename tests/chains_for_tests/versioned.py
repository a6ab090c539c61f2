"""A chain that gives the version with which it was registered."""

import os

from batchord.chains import register

VERSION = os.environ.get("TEST_VERSION") or None

register("versioned", lambda _: VERSION, version=VERSION)
