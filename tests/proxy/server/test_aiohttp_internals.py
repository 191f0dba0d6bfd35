"""What we lean on inside aiohttp is still there; when not, this is where to look first."""

import inspect

import aiohttp
import pytest
from aiohttp import web, web_protocol
from aiohttp.http_parser import RawRequestMessage
from aiohttp.test_utils import RawTestServer

from olla.proxy.http.raw_response import WRITTEN_CLOSE, WRITTEN_KEEP_ALIVE, written
from olla.proxy.server.aiohttp_internals import Connection

SOURCE = inspect.getsource(web_protocol.RequestHandler)


def test_the_server_makes_its_protocols_by_being_called() -> None:
    """`AiohttpServer.__call__` takes no argument and returns a RequestHandler."""
    assert list(inspect.signature(web.Server.__call__).parameters) == ["self"]
    assert issubclass(Connection, web_protocol.RequestHandler)


@pytest.mark.parametrize(
    "name",
    ["_messages", "_request_count", "_request_in_progress", "_force_close", "_close", "_waiter"],
)
def test_the_protocol_still_has_the_attributes(name: str) -> None:
    """A renamed attribute would silently switch the bound on heads off."""
    assert name in web_protocol.RequestHandler.__slots__


def test_messages_are_pairs_with_their_payload() -> None:
    """Parsed messages are queued as (message, payload), errors as `_ErrInfo` with a payload."""
    assert "self._messages.append((msg, payload))" in SOURCE
    assert "_ErrInfo(status=400" in SOURCE


def test_errors_are_answered_by_an_overridable_method() -> None:
    """`handle_error` gets request, status, exception and message."""
    parameters = list(inspect.signature(web_protocol.RequestHandler.handle_error).parameters)
    assert parameters == ["self", "request", "status", "exc", "message"]


def test_finishing_needs_no_more_of_a_response_than_we_offer() -> None:
    """`finish_response` and `start` use `prepare`, `write_eof` and `keep_alive`, nothing else."""
    finish = inspect.getsource(web_protocol.RequestHandler.finish_response)
    used = {part.split("(")[0].split()[0] for part in finish.split("resp.")[1:]}
    assert used <= {"prepare", "write_eof"}
    assert "bool(resp.keep_alive)" in SOURCE


async def test_a_handler_may_write_to_the_transport_itself() -> None:
    """The answer written by hand arrives once, and the connection goes on or ends as we say."""

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        keep = request.path == "/keep"
        assert request.transport is not None
        request.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
        return written(keep)

    async with RawTestServer(handler) as server, aiohttp.ClientSession() as session:
        for path in ("/keep", "/keep", "/close"):
            async with session.get(server.make_url(path)) as response:
                assert await response.text() == "hi"


def test_there_is_one_mark_for_each_way_to_go_on() -> None:
    """`written` makes no object per request."""
    assert written(True) is WRITTEN_KEEP_ALIVE
    assert written(False) is WRITTEN_CLOSE


def test_a_requests_message_has_left_the_queue_when_its_object_is_made() -> None:
    """So an empty queue in the factory means that it is the last."""
    assert SOURCE.index("self._messages.popleft()") < SOURCE.index("self._request_factory(")


def test_a_closing_connection_ends_after_the_request_that_is_answered() -> None:
    """`close` keeps the loop from waiting for another; it takes no answer away."""
    assert "if self._keepalive and not self._close and not self._force_close:" in SOURCE


def test_an_answers_fields_are_complete_when_the_hook_sees_them() -> None:
    """And not written yet: `AiohttpServer` can still be set."""
    source = inspect.getsource(web.StreamResponse._start)
    steps = ("_prepare_headers()", "_prepare_hook(self)", "_write_headers()")
    places = [source.index(step) for step in steps]
    assert places == sorted(places)


def test_a_parsed_message_can_be_replaced() -> None:
    """An absolute target becomes one in origin form before anybody sees it."""
    for name in ("path", "url", "headers", "raw_headers", "_replace"):
        assert hasattr(RawRequestMessage, name)
