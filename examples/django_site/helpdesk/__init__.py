"""A Django project; as Celery's manual says, its app is loaded with it, for `shared_task`."""

from helpdesk.celery import app as celery_app

__all__ = ("celery_app",)
