"""In front of every gRPC method: the fault that is set, then the token."""

from collections.abc import Callable
from typing import cast

import grpc

from provisioning.emulator.faults import Door, Fault, Faults
from provisioning.emulator.oauth import Tokens

_REFUSALS = {
    Fault.RATE_LIMIT: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Fault.AWAY: grpc.StatusCode.UNAVAILABLE,
    Fault.REFUSE: grpc.StatusCode.PERMISSION_DENIED,
}


class Gate(grpc.ServerInterceptor):  # type: ignore[misc]  # grpc ships no types
    """Lets a call through that carries a good token, unless a fault says otherwise."""

    def __init__(self, tokens: Tokens, faults: Faults) -> None:
        self._tokens = tokens
        self._faults = faults

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler | None:
        """The method behind a check. The check runs in the method's own thread: here it would hold up every other call."""
        handler = continuation(handler_call_details)
        if handler is None:
            return None

        def checked(request: object, context: grpc.ServicerContext) -> object:
            self._check(context)
            return handler.unary_unary(request, context)

        return grpc.unary_unary_rpc_method_handler(checked, handler.request_deserializer, handler.response_serializer)

    def _check(self, context: grpc.ServicerContext) -> None:
        fault = self._faults.at(Door.API)
        if fault in _REFUSALS:
            context.abort(_REFUSALS[fault], f"The emulator was told to misbehave: {fault}.")
        # After a refresh the SDK sends two entries, the new token and the one it began with: one good one is enough.
        sent = (cast(str, value) for key, value in context.invocation_metadata() if key == "authorization")
        if not any(self._tokens.accepts(value.removeprefix("Bearer ")) for value in sent):
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "The emulator does not accept this token.")
