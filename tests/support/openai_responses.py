"""Answers of the test server at `/v1/responses`: `Response` of the SDK's types, as JSON."""

import time

from tests.support import openai_answers as answers
from tests.support.openai_answers import JsonObject
from tests.support.openai_rules import Action


def response(body: JsonObject, action: Action | None, code: str | None, cached: int) -> JsonObject:
    """The answer to this request, wrong in the way that `action` says, but for its model."""
    text = answers.chat_content(body)
    said: JsonObject = {"type": "output_text", "text": text, "annotations": []}
    status, error = "completed", None
    reason: JsonObject | None = None
    silent = False
    match action:
        case "truncate":
            said["text"] = text[: len(text) // 2]
            status, reason = "incomplete", {"reason": "max_output_tokens"}
        case "refuse":
            said = {"type": "refusal", "refusal": "I'm sorry, I cannot assist with that request."}
        case "filter":
            status, reason, silent = "incomplete", {"reason": "content_filter"}, True
        case "garbage":
            said["text"] = "This is not what the schema asked for."
        case "break":
            status, error, silent = "failed", {"code": code, "message": "told to fail"}, True
    return {
        "id": f"resp_{answers.stable_id(body)}",
        "object": "response",
        "created_at": int(time.time()),
        "status": status,
        "error": error,
        "incomplete_details": reason,
        "output": _output(said, silent),
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": answers.response_usage(body, said.get("text", ""), cached),
    }


def _output(said: JsonObject, silent: bool) -> list[JsonObject]:
    thought: JsonObject = {"id": "rs_1", "type": "reasoning", "summary": []}
    if silent:
        return [thought]
    message: JsonObject = {"type": "message", "role": "assistant", "status": "completed"}
    # What is said on the way is no part of the answer.
    aside = {"type": "output_text", "text": "Let me see. ", "annotations": []}
    return [
        thought,
        {**message, "id": "msg_1", "phase": "commentary", "content": [aside]},
        {**message, "id": "msg_2", "phase": "final_answer", "content": [said]},
    ]
