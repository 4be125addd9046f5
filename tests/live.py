"""The service on a real port, in a thread of this process: what only a real HTTP client can drive."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

START_WITHIN = 30.0  # seconds


@contextmanager
def listening(app: Callable[..., Any], port: int = 0, **more: Any) -> Iterator[str]:
    """Serve an ASGI application inside the `with`, on a free port unless told, with `more` of uvicorn's options; yields its URL."""
    options = {"lifespan": "auto", "log_config": None, "access_log": False, "ws": "none", "timeout_graceful_shutdown": 2}
    server = uvicorn.Server(uvicorn.Config(app, **{**options, **more}))
    with socket.create_server(("127.0.0.1", port), backlog=512) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            limit = time.monotonic() + START_WITHIN
            while not server.started:
                assert thread.is_alive()
                assert time.monotonic() < limit
                time.sleep(0.01)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
