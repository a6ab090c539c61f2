"""Tickets, and the urgency that the chain has found."""

from django.db import models


class Ticket(models.Model):
    """A message of a customer."""

    text = models.TextField()
    urgency = models.CharField(max_length=20, blank=True)
    error = models.CharField(max_length=50, blank=True)
