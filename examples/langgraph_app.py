"""A graph of LangGraph's that has a node on the workers: triage there, what follows from it here.

The chain takes the graph's state and gives its changes, so that it is a node as it stands. Tickets
that come to the node at about the same moment share one durable batch.

    batchord up --chains triage
    python -m examples.langgraph_app "The site is down" "Please rename me"
"""

import asyncio
import sys
from collections.abc import Sequence
from typing import Any, TypedDict

from langgraph.graph import END, START, StateGraph

from batchord import Client, RemoteRunnable


class State(TypedDict, total=False):
    """The state of a ticket."""

    ticket: str
    urgency: str
    summary: str
    queue: str


def route(state: State) -> State:
    """Choose who answers the ticket."""
    return {"queue": "on call" if state["urgency"] == "high" else "support"}


def build(client: Client) -> Any:
    """Return the compiled graph."""
    graph = StateGraph(State)
    graph.add_node("triage", RemoteRunnable("triage", client=client, gather_calls=0.1))
    graph.add_node("route", route)
    graph.add_edge(START, "triage")
    graph.add_edge("triage", "route")
    graph.add_edge("route", END)
    return graph.compile()


async def main(tickets: Sequence[str]) -> None:
    """Run the graph for all tickets; one that fails stops none of the others."""
    with Client() as client:
        states: Any = [{"ticket": ticket} for ticket in tickets]
        for found in await build(client).abatch(states, return_exceptions=True):
            print(found)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
