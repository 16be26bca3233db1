"""The page's server: routes to answers. It changes nothing but the corrections, and runs no SQL from a request."""

from __future__ import annotations

import functools
import socket
import tempfile
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from maskdet.errors import ConfigError, MaskdetError
from maskdet.explore.access import Gate, Guarded
from maskdet.explore.exports import FORMATS, write_counts, write_faces
from maskdet.explore.films import film_response
from maskdet.explore.pictures import Picture, Pictures
from maskdet.explore.questions import Asked, Question
from maskdet.explore.relabelling import Relabelling
from maskdet.explore.row_ids import RowId
from maskdet.explore.tracks import Tracks
from maskdet.report.database import Tables
from maskdet.report.video_frames import is_frame

_ASSETS = {
    "explore.js": ("maskdet.explore", "static/explore.js", "text/javascript; charset=utf-8"),
    "parts.js": ("maskdet.explore", "static/parts.js", "text/javascript; charset=utf-8"),
    "tracks.js": ("maskdet.explore", "static/tracks.js", "text/javascript; charset=utf-8"),
    "tracks.css": ("maskdet.explore", "static/tracks.css", "text/css; charset=utf-8"),
    "explore.css": ("maskdet.explore", "static/explore.css", "text/css; charset=utf-8"),
    "page.css": ("maskdet.report", "templates/page.css", "text/css; charset=utf-8"),
}


def explorer(tables: Tables, gate: Gate) -> Guarded:
    """The application.

    Args:
        tables: what it is about.
        gate: who may use it.
    """
    asked, pictures = Asked(tables), Pictures(tables)
    asked.prepare()

    def answers(answer: Callable[[Question], dict[str, Any]]) -> Callable[[Request], Response]:
        return lambda request: JSONResponse(answer(_question(tables, request)))

    routes = [
        Route("/", _page),
        Route("/assets/{name}", _asset),
        Route("/api/start", lambda request: JSONResponse(asked.start())),
        Route("/api/view", answers(asked.view)),
        Route("/api/histogram", answers(asked.histogram)),
        Route("/api/faces", answers(asked.faces)),
        Route("/api/relabel", functools.partial(_relabel, Relabelling(tables, asked)), methods=["POST"]),
        Route("/favicon.ico", lambda _: Response(status_code=204)),
        Route("/picture/face/{place}", lambda request: _picture(request, pictures.crop)),
        Route("/picture/image/{place}", lambda request: _picture(request, pictures.whole)),
        *_video_routes(tables),
        Route("/export/{what}.{kind}", lambda request: _export(request, tables, asked)),
    ]
    handlers: Any = {MaskdetError: _refused}
    return Guarded(Starlette(routes=routes, exception_handlers=handlers), gate)


def _video_routes(tables: Tables) -> list[Route]:
    """The routes for videos; none where there are no videos."""
    if not tables.has_tracks:
        return []
    tracks = Tracks(tables)

    def frames(request: Request) -> Response:
        place = RowId.read(request.path_params["place"], "tracks")
        found = None if place is None else tracks.frames(place)
        return PlainTextResponse("There is no such track.\n", 404) if found is None else JSONResponse(found)

    def film(request: Request) -> Response:
        place = RowId.read(request.path_params["place"], "faces", "faceless")
        row = None if place is None else tables.row(*place)
        if row is None or not is_frame(row):
            return PlainTextResponse("There is no such frame.\n", 404)
        return film_response(request, row["image_uri"])

    return [
        Route("/api/tracks", lambda request: JSONResponse(tracks.page(request.query_params.multi_items()))),
        Route("/api/track/{place}", frames),
        Route("/video/{place}", film),
    ]


def serve(tables: Tables, host: str, port: int, names: tuple[str, ...], ready: Callable[[Gate], None]) -> None:
    """Serve the page until the process is interrupted.

    Args:
        tables: what it is about.
        host: address to listen on.
        port: to listen on; 0 takes a free one.
        names: hosts that requests may name.
        ready: called, once the page can be opened, with what opens it.

    Raises:
        ConfigError: the server cannot listen on the address, or a package that it needs is not installed.
    """
    import uvicorn

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except (OSError, OverflowError) as error:  # the second: not a port at all
        listening.close()
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError("--host and --port", "an address to listen on", f"{host}:{port} ({reason})") from error
    gate = Gate(listening.getsockname()[1], names)
    config = uvicorn.Config(explorer(tables, gate), lifespan="off", access_log=False, log_level="warning")
    with listening:
        listening.listen()
        ready(gate)
        uvicorn.Server(config).run(sockets=[listening])


def _page(_: Request) -> Response:
    return Response(_read("maskdet.explore", "static/page.html"), media_type="text/html; charset=utf-8")


def _asset(request: Request) -> Response:
    found = _ASSETS.get(request.path_params["name"])
    if found is None:
        return PlainTextResponse("There is no such file.\n", 404)
    package, name, kind = found
    return Response(_read(package, name), media_type=kind)


def _read(package: str, name: str) -> bytes:
    return files(package).joinpath(name).read_bytes()


def _question(tables: Tables, request: Request) -> Question:
    return Question.read(tables, request.query_params.multi_items())


def _refused(_: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 400)


def _picture(request: Request, read: Callable[[RowId], Picture | None]) -> Response:
    place = RowId.read(request.path_params["place"], "faces", "faceless")
    found = None if place is None else read(place)
    if found is None:
        return PlainTextResponse("There is no such row.\n", 404)
    if isinstance(found, str):
        return PlainTextResponse(f"{found}\n", 410)
    return Response(found, media_type="image/jpeg")


async def _relabel(relabelling: Relabelling, request: Request) -> Response:
    if request.headers.get("content-type") != "application/json":
        return PlainTextResponse("JSON is expected.\n", 415)
    try:
        wanted = await request.json()
        place, label = RowId.read(str(wanted["id"]), "faces"), wanted["label"]
    except (ValueError, KeyError, TypeError):
        place, label = None, None
    if place is None:
        return PlainTextResponse("There is no such face.\n", 404)
    found = await run_in_threadpool(relabelling.relabel, place, label)
    return PlainTextResponse("There is no such face.\n", 404) if found is None else JSONResponse(found)


def _export(request: Request, tables: Tables, asked: Asked) -> Response:
    what, kind = request.path_params["what"], request.path_params["kind"]
    if what not in ("faces", "counts") or kind not in FORMATS:
        return PlainTextResponse("There is no such export.\n", 404)
    question = _question(tables, request)
    folder = tempfile.TemporaryDirectory(prefix="maskdet-export-")
    path = Path(folder.name) / f"{what}.{kind}"
    try:
        if what == "faces":
            write_faces(tables, question, kind, path)
        else:
            view = asked.view(question)
            write_counts(tables, question.by, view["bars"] or [view["total"]], kind, path)
    except BaseException:
        folder.cleanup()
        raise
    cleaned = BackgroundTask(folder.cleanup)
    return FileResponse(path, media_type=FORMATS[kind], filename=f"maskdet-{what}.{kind}", background=cleaned)
