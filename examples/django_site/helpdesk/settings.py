"""The smallest settings that this project runs with; only the last lines are about Celery."""

import os
from pathlib import Path

BASE_DIR = Path(__file__).parents[1]

SECRET_KEY = os.environ.get("SECRET_KEY", "only-for-this-example")
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
INSTALLED_APPS = ["tickets"]
ROOT_URLCONF = "helpdesk.urls"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("SITE_DATABASE", BASE_DIR / "site.sqlite3"),
    }
}

# The project's own Celery, as Django projects have it. `on_complete` is published on the Redis that
# Batchord uses: it is the project's broker too, with a queue of its own.
CELERY_BROKER_URL = os.environ.get("BATCHORD_REDIS_URL", "redis://127.0.0.1:6379/0")
CELERY_TASK_DEFAULT_QUEUE = "site"
