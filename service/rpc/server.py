"""gRPC on the event loop of HTTP, through the same gate: counted, refused and drained alike."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, NamedTuple

import grpc
import grpc.aio
from google.protobuf.message import DecodeError, Message

from service.errors import MalformedBody, RequestError, too_late
from service.http.asgi import ClientLeft
from service.http.exchange import Exchange
from service.http.lifecycle import Lifecycle
from service.http.middleware import Gate
from service.http.problems import OUR_BUG
from service.models.registry import Registry
from service.rpc import inference_pb2 as messages
from service.rpc.codes import Metadata, code_of, retry_metadata
from service.rpc.methods import Call, Methods
from service.settings import Settings

logger = logging.getLogger(__name__)

SERVICE = "inference.GRPCInferenceService"
# For calls that are being answered when the server has left; by then there is none that waits for a model.
GRACE_SECONDS = 1.0

Context = grpc.aio.ServicerContext[bytes, bytes]


class _Method(NamedTuple):
    """A method, the message that it takes, and which of HTTP's needs the same key; None: it is for everybody."""

    answer: Callable[[Any, Call], Awaitable[Any]]
    request: type[Message]
    like: str | None


class RpcServer:
    """The server of one process; `start` it on the event loop.

    Args:
        gate: of the process.
        settings: of the process.
        lifecycle: of the process.
        registry: of the models.
    """

    def __init__(
        self,
        gate: Gate,
        settings: Settings,
        lifecycle: Lifecycle,
        registry: Registry,
    ) -> None:
        self._gate = gate
        self._host, self._port = settings.host, settings.grpc_port
        methods = Methods(gate.predictor, settings, lifecycle, registry)
        table = {
            "ServerLive": _Method(methods.server_live, messages.ServerLiveRequest, None),
            "ServerReady": _Method(methods.server_ready, messages.ServerReadyRequest, None),
            "ModelReady": _Method(methods.model_ready, messages.ModelReadyRequest, None),
            "ServerMetadata": _Method(methods.server_metadata, messages.ServerMetadataRequest, "GET"),
            "ModelMetadata": _Method(methods.model_metadata, messages.ModelMetadataRequest, "GET"),
            "ModelInfer": _Method(methods.model_infer, messages.ModelInferRequest, "POST"),
        }
        handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
            name: grpc.unary_unary_rpc_method_handler(partial(self._answer, f"/{SERVICE}/{name}", method))
            for name, method in table.items()
        }
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", settings.max_body_bytes),
                # Otherwise a port that another process has is shared with it, unnoticed.
                ("grpc.so_reuseport", 0),
            ]
        )
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))

    async def start(self) -> int:
        """Listen.

        Returns:
            The port.

        Raises:
            OSError: the address cannot be listened on.
        """
        host = f"[{self._host}]" if ":" in self._host else self._host
        try:
            port = self._server.add_insecure_port(f"{host}:{self._port}")
        except RuntimeError as error:
            raise OSError(str(error)) from None
        await self._server.start()
        logger.info("gRPC on %s:%d", host, port)
        return port

    async def stop(self) -> None:
        """Take no more calls, and wait a little for those that are being answered."""
        await self._server.stop(GRACE_SECONDS)

    async def _answer(self, path: str, method: _Method, data: bytes, context: Context) -> bytes:
        """One call, from its bytes to those of its answer."""
        headers = [(_bytes(key), _bytes(value)) for key, value in context.invocation_metadata() or ()]
        exchange = self._gate.enter(headers, "POST", path)
        marks: Metadata = (("x-request-id", exchange.request_id),)
        try:
            if method.like and (refusal := self._gate.refusal(exchange, method.like, path, headers)):
                raise refusal
            answer = await method.answer(_parsed(method.request, data), Call(exchange, context))
            exchange.status = 200
            context.set_trailing_metadata(marks)
            return bytes(answer.SerializeToString())
        except asyncio.CancelledError:
            self._note_leaving(exchange, context)
            raise
        except RequestError as error:
            exchange.error, exchange.status = error, error.status
            await context.abort(code_of(error), error.detail, (*marks, *retry_metadata(error)))
        except Exception as error:
            exchange.status = self._gate.our_bug(exchange, error).status
            await context.abort(grpc.StatusCode.INTERNAL, OUR_BUG, marks)
        finally:
            self._gate.leave(exchange, path)
        raise AssertionError("abort raises")

    def _note_leaving(self, exchange: Exchange, context: Context) -> None:
        """A call that is cancelled: by its client, or because its deadline has passed."""
        seconds = context.time_remaining()
        exchange.status = too_late().status if seconds is not None and seconds <= 0 else ClientLeft.status


def _parsed(kind: type[Message], data: bytes) -> Message:
    try:
        return kind.FromString(data)
    except DecodeError:
        raise MalformedBody(f"the message is no {kind.__name__}") from None


def _bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value
