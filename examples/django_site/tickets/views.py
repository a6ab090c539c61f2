"""Create tickets, list them, and have the open ones sorted by urgency."""

import json

from django.http import HttpRequest, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from tickets.models import Ticket
from tickets.tasks import submit_open_tickets


@csrf_exempt
def tickets(request: HttpRequest) -> JsonResponse:
    """POST a list of texts to create tickets; GET lists all of them."""
    if request.method == "POST":
        Ticket.objects.bulk_create(Ticket(text=text) for text in json.loads(request.body))
    return JsonResponse({"tickets": list(Ticket.objects.values("id", "text", "urgency", "error"))})


@csrf_exempt
@require_POST
def triage(request: HttpRequest) -> JsonResponse:
    """Have a worker of the project submit the batch; answer at once."""
    return JsonResponse({"task": submit_open_tickets.delay().id}, status=202)
