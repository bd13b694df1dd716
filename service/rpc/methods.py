"""The methods of the protocol. Each gets a message and gives one; what it raises becomes a code."""

from __future__ import annotations

import math

import grpc.aio

from service.errors import RequestError, too_late
from service.http.exchange import Exchange
from service.http.health import dead, model_unready, unready
from service.http.lifecycle import Lifecycle
from service.http.predict import Predictor, settle
from service.inference.answers import tensors_of as answer_tensors
from service.inference.answers import width
from service.inference.metadata import full_name, model_metadata, server_metadata
from service.inference.questions import question, wanted_outputs
from service.inference.signature import Parameters
from service.models.registry import Registry
from service.rpc.inference_pb2 import (
    ModelInferRequest,
    ModelInferResponse,
    ModelMetadataRequest,
    ModelMetadataResponse,
    ModelReadyRequest,
    ModelReadyResponse,
    ServerLiveRequest,
    ServerLiveResponse,
    ServerMetadataRequest,
    ServerMetadataResponse,
    ServerReadyRequest,
    ServerReadyResponse,
)
from service.rpc.messages import metadata_response, parameters_of, response, tensors_of
from service.schemas import LONGEST_TIMEOUT_MS
from service.settings import Settings


class Call:
    """One call as its method sees it.

    Args:
        exchange: of the call.
        context: of gRPC.
    """

    def __init__(self, exchange: Exchange, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        self.exchange = exchange
        self._context = context

    def bounded(self, parameters: Parameters) -> Parameters:
        """The parameters with the client's own deadline, which holds if it is earlier than theirs.

        Raises:
            DeadlineExceeded: it has passed.
        """
        seconds = self._context.time_remaining()
        if seconds is None:
            return parameters
        left_ms = min(math.floor(1000 * seconds), LONGEST_TIMEOUT_MS)
        if left_ms < 1:
            raise too_late()
        given_ms = parameters.wait_ms
        wait_ms = left_ms if given_ms is None else min(left_ms, given_ms)
        return parameters.model_copy(update={"timeout": None, "timeout_ms": wait_ms})


class Methods:
    """What the service answers over gRPC."""

    def __init__(self, predictor: Predictor, settings: Settings, lifecycle: Lifecycle, registry: Registry) -> None:
        self._predictor = predictor
        self._settings = settings
        self._lifecycle = lifecycle
        self._registry = registry

    async def server_live(self, _: ServerLiveRequest, __: Call) -> ServerLiveResponse:
        """As `/livez`."""
        return ServerLiveResponse(live=dead(self._registry) is None)

    async def server_ready(self, _: ServerReadyRequest, __: Call) -> ServerReadyResponse:
        """As `/readyz`."""
        return ServerReadyResponse(ready=unready(self._lifecycle, self._registry) is None)

    async def model_ready(self, request: ModelReadyRequest, _: Call) -> ModelReadyResponse:
        """Whether a model answers."""
        wanted = full_name(request.name, request.version)
        return ModelReadyResponse(ready=model_unready(wanted, self._lifecycle, self._registry) is None)

    async def server_metadata(self, _: ServerMetadataRequest, __: Call) -> ServerMetadataResponse:
        """Name and version; the extensions are those of HTTP."""
        metadata = server_metadata()
        return ServerMetadataResponse(name=metadata.name, version=metadata.version)

    async def model_metadata(self, request: ModelMetadataRequest, _: Call) -> ModelMetadataResponse:
        """Inputs and outputs of a model, and the versions of it that are loaded."""
        self._refuse_in_this_phase()
        model = self._registry.main(full_name(request.name, request.version))
        return metadata_response(model_metadata(model, self._registry))

    async def model_infer(self, request: ModelInferRequest, call: Call) -> ModelInferResponse:
        """Best labels for each row of the inputs; a client that leaves takes its queries out of the queue."""
        self._refuse_in_this_phase()
        parameters, tensors = call.bounded(parameters_of(request)), tensors_of(request)
        model = self._registry.get(full_name(request.model_name, request.model_version))
        outputs = wanted_outputs(model, [output.name for output in request.outputs])
        asked = question(model, tensors, parameters, self._settings)
        pending = self._predictor.submit(call.exchange, asked)
        await pending.future  # gRPC cancels the task, and so the future, when the client leaves
        predictions, _ = settle(pending)
        return response(request, model, answer_tensors(outputs, predictions, width(model, asked)))

    def _refuse_in_this_phase(self) -> None:
        refusal: RequestError | None = self._lifecycle.refusal()
        if refusal is not None:
            raise refusal
