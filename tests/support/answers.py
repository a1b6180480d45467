"""Every answer of a web app under test against the description of its API."""

import json
from typing import Any, Final

from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.protocols import Validator
from sanic import Request
from sanic.response import BaseHTTPResponse

from dimint.webapp.openapi import description, template
from dimint.webapp.site import App

__all__ = ["check_answers", "closed", "problem_of"]

_DESCRIPTION: Final = description("0")
_VALIDATORS: Final[dict[str, Validator]] = {}


def closed(schema: Any) -> Any:
    """The schema without the room that its maps leave for keys to come: what is answered now is described now."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: closed(part) for key, part in schema.items()}
    if made.get("type") == "object" and "properties" in made:
        made.setdefault("additionalProperties", False)
    return made


_CLOSED: Final = closed(_DESCRIPTION)
_PATHS: Final = {path.rstrip("/"): operations for path, operations in _CLOSED["paths"].items()}
"""Sanic's routes have no slash at their end."""


def problem_of(method: str, path: str, status: int, media: str, body: bytes | None) -> str | None:
    """What of an answer the description does not say; `path` is the one with `{names}`; None if all is well."""
    operation = _PATHS.get(path.rstrip("/"), {}).get(method.lower())
    if operation is None:
        return f"{method} {path} is not described"
    response = operation["responses"].get(str(status))
    if response is None:
        if status == 200:
            return f"{method} {path} has no answer 200"
        response = operation["responses"]["default"]
    media = media.partition(";")[0]
    content = response.get("content", {})
    found = content.get(media, content.get("*/*"))
    if found is None:
        return f"{method} {path}: {status} is never {media!r}" if media and content else None
    if body is None or "schema" not in found:
        return None
    schema = {**found["schema"], "components": _CLOSED["components"]}
    key = json.dumps(found["schema"], sort_keys=True)
    validator = _VALIDATORS.setdefault(key, Draft202012Validator(schema, format_checker=FormatChecker()))
    error = next(iter(validator.iter_errors(json.loads(body))), None)
    return None if error is None else f"{method} {path}: {'/'.join(map(str, error.absolute_path))}: {error.message[:300]}"


def check_answers(app: App) -> list[str]:
    """Compare every answer of this app from now on; a list that what is wrong is added to."""
    problems: list[str] = []

    async def check(request: Request, response: BaseHTTPResponse) -> None:
        if request.route is None or request.method not in ("GET", "POST"):
            return  # no path of ours
        path = template("/" + "/".join(_named(part) for part in request.route.path.split("/")))
        body = getattr(response, "body", None)
        problem = problem_of(request.method, path, response.status, response.content_type or "", body)
        if problem is not None:
            problems.append(problem)

    app.register_middleware(check, "response")
    return problems


def _named(part: str) -> str:
    """`<name:str>` as `<name>`."""
    return part.partition(":")[0] + ">" if part.startswith("<") else part
