"""`/openapi.json`: the table of paths (api.py) and the shapes of JSON (api_schemas.py) as one OpenAPI 3.1 description. [S]

https://spec.openapis.org/oas/v3.1.1.html
"""

import re
from collections.abc import Iterable
from typing import Any, Final

from dimint.webapp.api import OPERATIONS, Answer, Operation
from dimint.webapp.api_schemas import SCHEMAS, Schema, ref

__all__ = ["description", "template"]

_GROUPS: Final = {
    "pages": "what people look at, for browsers, terminals (`term=true`) and, where a form `json` is named, programs",
    "states": "what programs read",
    "store": "the key-value store and its past",
    "senders": "where hosts report over HTTP",
    "service": "the server itself",
}
_TEXT: Final = (
    "Where a `GET` gives a page, a table or JSON, `HEAD` works too. Maps may get more keys at any time. Under `/states/`, "
    "`/register/` and `/update/host/` the HTTP status is 200 and `status_code` in the body tells what is wrong."
)
_NAMED: Final = re.compile(r"<(\w+)>")


def description(version: str) -> dict[str, Any]:
    """The whole description, for the server of this version."""
    paths: dict[str, Any] = {}
    for operation in OPERATIONS:
        paths.setdefault(template(operation.path), {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": "DiMint", "version": version, "description": _TEXT, "license": {"name": "MIT", "identifier": "MIT"}},
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": text} for name, text in _GROUPS.items()],
        "paths": paths,
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": {
                "token": {"type": "apiKey", "in": "query", "name": "token", "description": "what `--token` says, if it is set"}
            },
        },
    }


def template(path: str) -> str:
    """`/states/<name>/` as `/states/{name}/`."""
    return _NAMED.sub(r"{\1}", path)


def _operation(one: Operation) -> dict[str, Any]:
    named = [
        {"name": name, "in": "path", "required": True, "description": one.parts, "schema": {"type": "string"}}
        for name in _NAMED.findall(one.path)
    ]
    words = [{"name": word.name, "in": "query", "description": word.text, "schema": word.schema} for word in one.words]
    made: dict[str, Any] = {
        "operationId": one.name,
        "tags": [one.group],
        "description": one.text,
        "parameters": [*named, *words],
        "responses": _responses(one.answers),
    }
    if one.body is not None:
        made["requestBody"] = {"required": True, "content": {"application/json": {"schema": one.body}}}
    if one.secret:
        made["security"] = [{}, {"token": []}]
    return made


def _responses(answers: Iterable[Answer]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for answer in answers:
        response = made.setdefault(str(answer.status), {"description": answer.text})
        if answer.media:
            response.setdefault("content", {})[answer.media] = _content(answer.schema)
    wrong = {"application/json": _content(ref("Error")), "text/html": {}, "text/plain": {}}
    return {**made, "default": {"description": "what is wrong", "content": wrong}}


def _content(schema: Schema | None) -> dict[str, Any]:
    return {} if schema is None else {"schema": schema}
