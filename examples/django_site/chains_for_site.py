"""`urgency`: one word for a ticket. Batchord's workers import this module, not the project."""

from batchord import Chat, Prompt, register

register("urgency", Prompt("Answer with one word, low or high. How urgent is: {ticket}") | Chat())
