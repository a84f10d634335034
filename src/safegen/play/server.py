"""Serving of the page to this machine alone."""

from __future__ import annotations

import logging
from typing import Any

from werkzeug.serving import BaseWSGIServer, make_server

from safegen.errors import SafegenError

LOOPBACK = "127.0.0.1"


def serve_on(application: Any, port: int) -> BaseWSGIServer:
    """Make the server of an application, which answers the loopback address alone.

    Args:
        application: a WSGI application.
        port: its port; 0 takes a free one.

    Raises:
        SafegenError: the port cannot be used.
    """
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for each request otherwise
    try:
        return make_server(LOOPBACK, port, application, threaded=True)
    except (OSError, SystemExit) as error:
        raise SafegenError(
            f"--port {port}: cannot be used; another program may have it, so give another"
        ) from error
