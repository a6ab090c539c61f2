"""The project's own Celery tasks. `shared_task` stays the project's, Batchord or not."""

from celery import shared_task

from batchord import Client
from tickets.models import Ticket


@shared_task
def store_answers(batch_id: str) -> int:
    """Write the outcomes of an ended batch to the tickets; called by `on_complete`."""
    stored = 0
    with Client() as client:
        for item in client.retrieve(batch_id).results():
            fields = {"error": item.error.code} if item.error else {"urgency": item.output}
            stored += Ticket.objects.filter(pk=int(item.custom_id or 0)).update(**fields)
    return stored


@shared_task
def submit_open_tickets() -> str:
    """Submit each ticket without an urgency, named by its primary key."""
    tickets = list(Ticket.objects.filter(urgency="").order_by("pk"))
    with Client() as client:
        batch = client.submit(
            "urgency",
            [{"ticket": ticket.text} for ticket in tickets],
            custom_ids=[str(ticket.pk) for ticket in tickets],
            on_complete=store_answers.s().set(queue="site"),
        )
        return batch.id
