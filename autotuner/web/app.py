"""The addresses that are served, and what answers each."""

from __future__ import annotations

import json
from collections.abc import Callable
from urllib.parse import parse_qs

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from autotuner.errors import AutotuneError, one_line
from autotuner.report.html import asset, plotly_source
from autotuner.web import pages
from autotuner.web.actions import Actions, RefusedError
from autotuner.web.events import changes
from autotuner.web.guard import Guard
from autotuner.web.hindcast import Hindcasts
from autotuner.web.metrics import health, metrics, settings, store_opens
from autotuner.web.site import Site
from storage.errors import NotFound, StorageError
from toto_core.symbols import SymbolError, parse_symbol

SETTINGS = "/api/v1/settings/"
COOKIE = "autotune"
_READING = ["GET", "HEAD"]
_MOST_FORM_BYTES = 10_000
_ASSETS: dict[str, tuple[str, Callable[[], str]]] = {
    "style.css": ("text/css", lambda: asset("style.css")),
    "charts.js": ("text/javascript", lambda: asset("charts.js")),
    "dashboard.js": ("text/javascript", lambda: pages.script("dashboard.js")),
    "plotly.js": ("text/javascript", plotly_source),
}


def application(site: Site) -> Guard:
    """Everything that is served for a site, as an ASGI application."""
    app = FastAPI(title="autotune", docs_url=None, redoc_url=None, openapi_url=None)
    _machines(app, site)
    _pages(app, site)
    _symbol_pages(app, site)
    if site.token is not None:
        _actions(app, site, Actions(location=site.location, token=site.token))

    @app.exception_handler(404)
    def unknown(request: Request, error: Exception) -> Response:
        return JSONResponse({"error": f"known are /, /metrics, /healthz, /readyz and {SETTINGS}SYMBOL"}, 404)

    @app.exception_handler(AutotuneError)
    @app.exception_handler(StorageError)
    def failed(request: Request, error: Exception) -> Response:
        said = one_line(str(error))
        return HTMLResponse(
            pages.message(site, "Nothing to show", said), 404 if isinstance(error, NotFound) else 503
        )

    return Guard(app, site.host)


def _machines(app: FastAPI, site: Site) -> None:
    @app.api_route("/healthz", methods=_READING)
    def healthz() -> Response:
        found = health(site.daemon)
        return JSONResponse(found, 200 if found["healthy"] else 503)

    @app.api_route("/readyz", methods=_READING)
    def readyz() -> Response:
        ready = health(site.daemon)["healthy"] and store_opens(site.location)
        return JSONResponse({"ready": ready}, 200 if ready else 503)

    @app.api_route("/metrics", methods=_READING)
    def prometheus() -> Response:
        return Response(
            metrics(site.location, site.daemon),
            headers={"content-type": "text/plain; version=0.0.4; charset=utf-8"},
        )

    @app.api_route(SETTINGS + "{symbol:path}", methods=_READING)
    def settings_of(symbol: str) -> Response:
        try:
            return JSONResponse(settings(site.location, symbol))
        except SymbolError as error:
            return JSONResponse({"error": str(error)}, 400)


def _symbol_pages(app: FastAPI, site: Site) -> None:
    hindcasts = Hindcasts(location=site.location)

    @app.api_route("/symbols/{symbol:path}", methods=_READING)
    def symbol_page(symbol: str, request: Request) -> Response:
        csrf = _csrf(request)
        return _about(site, symbol, lambda known: HTMLResponse(pages.symbol_page(site, known, csrf=csrf)))

    @app.api_route("/hindcast/{symbol:path}", methods=_READING)
    def hindcast(symbol: str) -> Response:
        def answer(known: str) -> Response:
            try:
                return HTMLResponse(pages.hindcast(hindcasts.of(known)))
            except AutotuneError as error:
                return HTMLResponse(pages.no_hindcast(one_line(str(error))))

        return _about(site, symbol, answer)

    @app.api_route("/download/{symbol:path}", methods=_READING)
    def download(symbol: str) -> Response:
        def answer(known: str) -> Response:
            text = json.dumps(pages.raw(site, known), indent=1, default=str)
            name = "".join(letter if letter.isalnum() else "_" for letter in known)
            headers = {"content-disposition": f'attachment; filename="{name}.json"'}
            return Response(text, media_type="application/json", headers=headers)

        return _about(site, symbol, answer)


def _pages(app: FastAPI, site: Site) -> None:
    @app.api_route("/", methods=_READING)
    def overview() -> Response:
        return HTMLResponse(pages.overview_page(site))

    @app.api_route("/daemon", methods=_READING)
    def daemon() -> Response:
        return HTMLResponse(pages.daemon_page(site))

    @app.get("/events")
    def events(since: str = "") -> Response:
        return StreamingResponse(
            changes(site, since), media_type="text/event-stream", headers={"cache-control": "no-store"}
        )

    @app.api_route("/assets/{name}", methods=_READING)
    def assets(name: str) -> Response:
        kind, read = _ASSETS.get(name, ("", None))
        if read is None:
            return JSONResponse({"error": "no such file"}, 404)
        return Response(read(), media_type=kind, headers={"cache-control": "max-age=86400"})


def _actions(app: FastAPI, site: Site, actions: Actions) -> None:
    app.state.actions = actions

    @app.api_route("/login", methods=_READING)
    def login_page() -> Response:
        return HTMLResponse(pages.login_page(site))

    @app.post("/login")
    async def login(request: Request) -> Response:
        form = await _form(request)
        try:
            _same_origin(request)
            session = await run_in_threadpool(actions.log_in, form.get("token", ""))
        except RefusedError as error:
            return HTMLResponse(pages.login_page(site, said=str(error)), 403)
        answer = RedirectResponse("/", 303)
        answer.set_cookie(COOKIE, session, httponly=True, samesite="strict", path="/")
        return answer

    @app.post("/actions/{action}")
    async def act(action: str, request: Request) -> Response:
        form = await _form(request)
        try:
            _same_origin(request)
            actions.check(request.cookies.get(COOKIE, ""), form.get("csrf", ""))
            said = await run_in_threadpool(actions.do, action, form)
        except RefusedError as error:
            return HTMLResponse(pages.message(site, "RefusedError", str(error)), 403)
        except (AutotuneError, StorageError, SymbolError) as error:
            return HTMLResponse(pages.message(site, "Not done", one_line(str(error))), 409)
        return HTMLResponse(pages.message(site, "Done", said))


def _about(site: Site, symbol: str, answer: Callable[[str], Response]) -> Response:
    try:
        return answer(parse_symbol(symbol))
    except SymbolError as error:
        return HTMLResponse(pages.message(site, "No symbol", one_line(str(error))), 400)


def _csrf(request: Request) -> str | None:
    """What forms of the page carry; None for who is not logged in."""
    actions: Actions | None = getattr(request.app.state, "actions", None)
    return None if actions is None else actions.csrf(request.cookies.get(COOKIE, ""))


def _same_origin(request: Request) -> None:
    """Raise ``RefusedError`` unless the form stood on a page of this server."""
    origin = request.headers.get("origin")
    if origin is None or origin != f"{request.url.scheme}://{request.headers['host']}":
        raise RefusedError("a form of another page, or of none")


async def _form(request: Request) -> dict[str, str]:
    """The fields of a form, the last of each name; nothing of a form that is none or too large."""
    body = b""
    try:
        async for part in request.stream():
            body += part
            if len(body) > _MOST_FORM_BYTES:
                return {}
    except ClientDisconnect:  # hung up in the middle of it
        return {}
    fields = parse_qs(body.decode("utf-8", "replace"), max_num_fields=20)
    return {name: values[-1] for name, values in fields.items()}
