"""The pages for people, `/` to try the service and `/docs` for the API, and `/openapi.json` for programs.

They load nothing from other sites.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Awaitable, Callable
from importlib.resources import files
from pathlib import Path
from typing import Final

from fastapi import FastAPI, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse

_INLINE: Final = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)

_INDEX_PAGE = Path(__file__).parent / "index.html"
_ASSETS = ("swagger-ui-bundle.js", "swagger-ui.css", "favicon.png")
_ASSETS_PATH = "static-offline-docs"
_DOCUMENT_PATH = "/openapi.json"


def add_pages(app: FastAPI) -> None:
    """Adds the pages, the interface's document, and the three files that `/docs` needs, to an application."""
    index = _page(_INDEX_PAGE.read_text(encoding="utf-8"), image="'self' data: blob:")  # blob: the photos dropped on it
    app.add_api_route(_DOCUMENT_PATH, _document(app), include_in_schema=False)
    app.add_api_route("/docs", _documentation(app, root=""), include_in_schema=False)
    app.add_api_route("/docs/", _documentation(app, root="../"), include_in_schema=False)
    app.add_api_route("/", index, include_in_schema=False)
    for name in _ASSETS:
        app.add_api_route(f"/{_ASSETS_PATH}/{name}", _asset(name), include_in_schema=False)


def _document(app: FastAPI) -> Callable[[], Awaitable[Response]]:
    encoded: bytes | None = None

    async def document() -> Response:
        nonlocal encoded
        if encoded is None:  # it is complete when all routes are there
            encoded = bytes(JSONResponse(app.openapi()).body)
        return Response(encoded, media_type="application/json")

    return document


def _documentation(app: FastAPI, *, root: str) -> Callable[[], Awaitable[Response]]:
    # Relative, so that a proxy may serve all of it below a path of its own.
    documentation = get_swagger_ui_html(
        openapi_url=root + _DOCUMENT_PATH.removeprefix("/"),
        title=f"{app.title}: API",
        swagger_js_url=f"{root}{_ASSETS_PATH}/swagger-ui-bundle.js",
        swagger_css_url=f"{root}{_ASSETS_PATH}/swagger-ui.css",
        swagger_favicon_url=f"{root}{_ASSETS_PATH}/favicon.png",
    )
    return _page(bytes(documentation.body).decode(), script="'self'", style="'self' 'unsafe-inline'")


def _page(
    html: str, *, script: str = "", style: str = "", image: str = "'self' data:"
) -> Callable[[], Awaitable[Response]]:
    headers = {"Content-Security-Policy": page_policy(html, script=script, style=style, image=image)}

    async def page() -> Response:
        return HTMLResponse(html, headers=headers)

    return page


def _asset(name: str) -> Callable[[], Awaitable[Response]]:
    # One route for each file: no path of a request is ever looked up in a folder.
    path = str(files("fastapi_offline") / "static" / name)

    async def asset() -> Response:
        return FileResponse(path, headers={"Cache-Control": "private, max-age=86400"})

    return asset


def page_policy(html: str, *, style: str = "", script: str = "", image: str = "'self' data:") -> str:
    """Returns the Content-Security-Policy of a page, which allows its own inline scripts and styles by their hashes.

    Args:
        html: the page as it is sent. It must have nothing in it that comes from a request.
        style: further sources that styles may come from; empty for none.
        script: further sources that scripts may come from; empty for none.
        image: the sources that images may come from.
    """
    hashes: dict[str, str] = {"script": script, "style": style}
    for kind, content in _INLINE.findall(html):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        hashes[kind] += f" 'sha256-{digest}'"
    sources = {f"{kind}-src": listed.strip() for kind, listed in hashes.items()}
    sources |= {"img-src": image, "connect-src": "'self'"}
    allowed = "; ".join(f"{directive} {listed}" for directive, listed in sources.items() if listed)
    return f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
