"""A reranker that runs elsewhere: nothing is deployed, but what RAGFlow would call is called once."""

from dataclasses import dataclass, field

import requests

TIMEOUT_SECONDS = 10


class ExternalError(Exception):
    """The external service cannot be used; the message has the remedy."""


@dataclass(frozen=True, kw_only=True)
class ExternalArgs:
    """`url` is the base URL that ends in /v1 for most services; `api_key` '' sends none."""

    url: str
    model: str
    api_key: str = field(repr=False)


def verify(args: ExternalArgs, *, session: requests.Session | None = None) -> str:
    """The service's base URL, after it listed the model. Raises ExternalError.

    Source of the shape: OpenAI's list of models, {"data": [{"id": ...}]}, which vLLM, TEI's router and llama.cpp answer with.
    """
    url = args.url.rstrip("/")
    headers = {"Authorization": f"Bearer {args.api_key}"} if args.api_key else {}
    try:
        answer = (session or requests.Session()).get(f"{url}/models", headers=headers, timeout=TIMEOUT_SECONDS)
    except requests.RequestException as error:
        raise ExternalError(f"externalUrl: {url} does not answer ({type(error).__name__}); start the service, or correct the URL") from error
    if answer.status_code in (401, 403):
        raise ExternalError(f"apiKey: {url} answered {answer.status_code}; set the key it wants: pulumi config set --secret apiKey")
    if answer.status_code != 200:
        raise ExternalError(f"externalUrl: {url}/models answered {answer.status_code}; the base URL of an OpenAI-style service usually ends in /v1")
    try:
        models = [str(item["id"]) for item in answer.json()["data"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ExternalError(f"externalUrl: {url}/models answered no list of models; is this a rerank service's base URL?") from error
    if args.model not in models:
        raise ExternalError(f"externalModel: {args.model!r} is not served by {url}; it serves {', '.join(models) or 'none'}")
    return url
