"""A web service: submit a batch, stream its events to the browser, download its results.

    uvicorn examples.fastapi_app:app

    curl -X POST localhost:8000/batches -H 'content-type: application/json' \
        -d '{"chain": "triage", "inputs": [{"ticket": "The site is down"}]}'
    curl -N localhost:8000/batches/BATCH_ID/events
    curl localhost:8000/batches/BATCH_ID/results
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, JsonValue

from batchord import Batch, BatchRecord, ChainNotFound, Client, SubmitRefused, UnknownBatch


class NewBatch(BaseModel):
    """The body of a submission."""

    chain: str
    inputs: list[JsonValue]
    idempotency_key: str | None = None


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """One client for the whole application: all waiting requests share its one connection."""
    with Client() as client:
        app.state.client = client
        yield


app = FastAPI(lifespan=lifespan)


async def find(request: Request, batch_id: str) -> Batch:
    client: Client = request.app.state.client
    try:
        return await client.aretrieve(batch_id)
    except UnknownBatch as error:
        raise HTTPException(404, str(error)) from error


@app.post("/batches", status_code=202)
async def submit(new: NewBatch, request: Request) -> BatchRecord:
    """Accept the batch; its items run on the workers, whatever becomes of this service."""
    client: Client = request.app.state.client
    try:
        batch = await client.asubmit(new.chain, new.inputs, idempotency_key=new.idempotency_key)
    except (ChainNotFound, SubmitRefused) as error:
        raise HTTPException(422, str(error)) from error
    return await batch.arecord()


@app.get("/batches/{batch_id}")
async def retrieve(batch_id: str, request: Request) -> BatchRecord:
    """Tell where the batch stands."""
    return await (await find(request, batch_id)).arecord()


@app.get("/batches/{batch_id}/events")
async def events(batch_id: str, request: Request) -> StreamingResponse:
    """Stream what happens to the batch until its end, for a browser's `EventSource`."""
    batch = await find(request, batch_id)

    async def lines() -> AsyncIterator[str]:
        async for event in batch.events():
            yield f"event: {event.type}\ndata: {event.model_dump_json()}\n\n"

    return StreamingResponse(lines(), media_type="text/event-stream")


@app.get("/batches/{batch_id}/results")
async def results(batch_id: str, request: Request) -> StreamingResponse:
    """Stream the items in input order, a JSON object a line, each as soon as it has ended."""
    batch = await find(request, batch_id)

    async def lines() -> AsyncIterator[str]:
        async for item in batch.results():
            yield item.model_dump_json(exclude_none=True) + "\n"

    return StreamingResponse(lines(), media_type="application/jsonl")


@app.post("/batches/{batch_id}/cancel")
async def cancel(batch_id: str, request: Request) -> dict[str, Any]:
    """End the batch with what is done."""
    return {"status": await (await find(request, batch_id)).acancel()}
