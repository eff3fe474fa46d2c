"""The routes: the page's own files, the stream of events, questions about one plugin, and what can be done to one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from .._attach import NotRunning
from .._errors import HostkitError
from .._log import on_one_line, tell
from ._browsers import Browsers, Crowded
from ._line import Host
from ._poller import Poller, text_of

_FILES = {
    "/": ("index.html", "text/html"),
    "/app.js": ("app.js", "text/javascript"),
    "/plot.js": ("plot.js", "text/javascript"),
    "/wire.js": ("wire.js", "text/javascript"),
    "/words.js": ("words.js", "text/javascript"),
    "/style.css": ("style.css", "text/css"),
}
_BODY, _BODY_WITHIN = 8 * 1024, 5.0
_LONGEST_NAME = 1024
# Questions that threads may have open at the same time, beside the poller's.
_QUESTIONS = 8
# Seconds for an answer; what is done to a plugin may load it, or wait until it is idle.
_QUESTION, _DEED = 5.0, 120.0


class Dashboard:
    """The application, without its guard. What it starts, its lifespan ends."""

    def __init__(self, host: Host, *, interval: float = 1.0, most: int = 32, stall: float = 10.0) -> None:
        self._host = host
        self._interval = interval
        self._questions = 0
        self.browsers = Browsers(most, stall=stall)
        self.poller = Poller(host, self._publish, interval=interval)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._published = 0.0
        self.app = Starlette(
            routes=[
                *(Route(path, _file(name, kind)) for path, (name, kind) in _FILES.items()),
                Route("/api/stream", self.stream),
                Route("/api/points", self.points),
                Route("/api/plugin", self.plugin),
                Route("/api/log", self.log),
                Route("/api/events", self.events),
                Route("/api/act", self.act, methods=["POST"]),
                Route("/metrics", self.metrics),
            ],
            exception_handlers={HostkitError: _told, HTTPException: _refused},
            lifespan=self._lifespan,
        )

    @asynccontextmanager
    async def _lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        self._loop = asyncio.get_running_loop()
        self.poller.start()
        ticking = asyncio.create_task(self._tick())
        try:
            yield
        finally:
            ticking.cancel()
            with suppress(asyncio.CancelledError):
                await ticking
            self.poller.close()

    async def _tick(self) -> None:
        """Tell browsers what the poller can't, while the host keeps it waiting."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._interval)
            if loop.time() - self._published > 1.5 * self._interval:
                self.browsers.publish(self.poller.link_event())

    def _publish(self, event: bytes) -> None:
        loop = self._loop
        assert loop is not None, "the poller is started by the loop"

        def publish() -> None:
            self._published = loop.time()
            self.browsers.publish(event)

        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(publish)

    async def stream(self, _request: Request) -> Response:
        """Send an event a second for as long as the browser reads them."""
        return _Stream(self.browsers, self.poller.event)

    async def points(self, request: Request) -> Response:
        """Return the last ten minutes as numbers."""
        return _json(self.poller.points(_name(request)))

    async def plugin(self, request: Request) -> Response:
        """Return all that the host tells of one plugin."""
        return _json(await self._asked("plugin", name=_name(request)))

    async def log(self, request: Request) -> Response:
        """Return the lines that one plugin has logged after a number; those of the host itself without a name."""
        return _json(await self._asked("log", name=_name(request), after=_after(request)))

    async def events(self, request: Request) -> Response:
        """Return what happened after a number."""
        return _json(await self._asked("events", after=_after(request)))

    async def metrics(self, _request: Request) -> Response:
        """Return what the host has for Prometheus."""
        answer = await self._asked("metrics")
        return Response(answer["text"], media_type="text/plain; version=0.0.4")

    async def act(self, request: Request) -> Response:
        """Do something to a plugin, and answer when it is done."""
        try:
            action = _ACTION.validate_json(await _body(request))
        except ValidationError as error:
            where = ".".join(map(str, error.errors()[0]["loc"]))
            raise HTTPException(400, f"that is no action: {where}: {error.errors()[0]['msg']}") from None
        arguments = action.model_dump(exclude={"verb"})
        words = " ".join([action.verb, on_one_line(action.name), *([action.place] if isinstance(action, _Isolate) else [])])
        try:
            answer = await self._asked(action.verb, within=_DEED, **arguments)
        except HostkitError as error:
            tell("WARNING", f"{words} from the dashboard: {type(error).__name__}: {error}", plugin=action.name)
            raise
        tell("INFO", f"{words} from the dashboard: done", plugin=action.name)
        return _json({"answer": answer})

    async def _asked(self, verb: str, /, *, within: float = _QUESTION, **arguments: object) -> Any:  # Any: JSON data
        """Ask on a thread of its own: a daemon, because nobody's exit waits for a host that is stopped."""
        if self._questions >= _QUESTIONS:
            raise Crowded(f"{_QUESTIONS} questions to the host are open already")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()

        def ask() -> None:
            try:
                result, error = self._host.ask(verb, within=within, **arguments), None
            except BaseException as raised:  # it is the loop's to tell
                result, error = None, raised
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(settle, result, error)

        def settle(result: Any, error: BaseException | None) -> None:
            self._questions -= 1
            if answer.done():
                return
            if error is None:
                answer.set_result(result)
            else:
                answer.set_exception(error)

        self._questions += 1
        threading.Thread(target=ask, name="hostkit-dashboard-ask", daemon=True).start()
        return await answer


class _Action(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    name: str = Field(min_length=1, max_length=_LONGEST_NAME)


class _Isolate(_Action):
    verb: Literal["isolate"]
    place: Literal["none", "process"]


class _Other(_Action):
    verb: Literal["drain", "resume", "restart"]


_ACTION: TypeAdapter[_Isolate | _Other] = TypeAdapter(Annotated[_Isolate | _Other, Field(discriminator="verb")])


class _Stream(Response):
    """A response that goes on."""

    def __init__(self, browsers: Browsers, first: Callable[[], bytes]) -> None:
        super().__init__()
        self._browsers = browsers
        self._mailbox = browsers.join()
        self._first = first

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._browsers.serve(self._mailbox, self._first(), scope, receive, send)


async def _body(request: Request) -> bytes:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(415, "expected Content-Type: application/json")
    body = b""
    try:
        async with asyncio.timeout(_BODY_WITHIN):
            async for chunk in request.stream():
                body += chunk
                if len(body) > _BODY:
                    raise HTTPException(413, f"expected at most {_BODY} bytes", {"connection": "close"})
    except TimeoutError:
        raise HTTPException(408, f"the request took more than {_BODY_WITHIN:g} s", {"connection": "close"}) from None
    except ClientDisconnect:
        raise HTTPException(400, "the request ended early", {"connection": "close"}) from None
    return body


def _name(request: Request) -> str:
    name = request.query_params.get("name", "")
    if len(name) > _LONGEST_NAME:
        raise HTTPException(400, f"expected a name of at most {_LONGEST_NAME} characters")
    return name


def _after(request: Request) -> int:
    text = request.query_params.get("after", "0")
    if not (text.isascii() and text.isdecimal() and len(text) <= 15):
        raise HTTPException(400, "expected after=NUMBER")
    return int(text)


def _file(name: str, kind: str) -> Callable[[Request], Response]:
    body = Path(__file__).with_name("static").joinpath(name).read_bytes()

    async def answer(_request: Request) -> Response:
        return Response(body, media_type=kind)

    return answer  # type: ignore[return-value]  # Starlette takes both kinds


def _json(value: object, status: int = 200) -> Response:
    return Response(text_of(value), status_code=status, media_type="application/json")


def _told(_request: Request, error: Exception) -> Response:
    kind = getattr(error, "kind", "") or type(error).__name__
    status = 503 if isinstance(error, (NotRunning, Crowded)) else 404 if kind == "PluginNotFound" else 409
    return _json({"error": {"type": kind, "message": str(error)}}, status)


def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    answer = _json({"error": {"type": "BadRequest", "message": error.detail}}, error.status_code)
    answer.headers.update(error.headers or {})
    return answer
