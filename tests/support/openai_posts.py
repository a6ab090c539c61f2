"""Answers of the test server at endpoints that no step calls: bodies as they are."""

from tests.support import openai_answers as answers
from tests.support.openai_answers import JsonObject


def completion(body: JsonObject) -> JsonObject:
    """`/v1/completions`: the prompt again."""
    prompt = str(body.get("prompt"))
    tokens = answers.count_tokens(prompt)
    return {
        "id": f"cmpl-{answers.stable_id(body)}",
        "object": "text_completion",
        "model": body.get("model"),
        "choices": [{"index": 0, "text": prompt, "finish_reason": "stop", "logprobs": None}],
        "usage": {"prompt_tokens": tokens, "completion_tokens": tokens, "total_tokens": 2 * tokens},
    }


def score(body: JsonObject) -> JsonObject:
    """`/v1/score`, of vLLM: 1 for each of the second texts."""
    texts = body.get("text_2") or []
    tokens = answers.count_tokens(f"{body.get('text_1')} {' '.join(texts)}")
    return {
        "id": f"score-{answers.stable_id(body)}",
        "object": "list",
        "model": body.get("model"),
        "data": [{"index": i, "object": "score", "score": 1.0} for i, _ in enumerate(texts)],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def rerank(body: JsonObject) -> JsonObject:
    """`/v1/rerank`, of vLLM: the documents as they stand."""
    found = [
        {"index": i, "document": {"text": text}, "relevance_score": 1.0}
        for i, text in enumerate(body.get("documents") or [])
    ]
    return {"id": f"rerank-{answers.stable_id(body)}", "model": body.get("model"), "results": found}


def moderation(body: JsonObject) -> JsonObject:
    """`/v1/moderations`: nothing is flagged."""
    return {
        "id": f"modr-{answers.stable_id(body)}",
        "model": body.get("model"),
        "results": [{"flagged": False, "categories": {}, "category_scores": {}}],
    }


#: By the path of the endpoint.
POSTS = {
    "/v1/completions": completion,
    "/v1/score": score,
    "/v1/rerank": rerank,
    "/v1/moderations": moderation,
}
