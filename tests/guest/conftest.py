# SPDX-License-Identifier: MIT
"""Shared parts of the guest tests."""
import http.server
import os
import sys
import threading

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import guest  # noqa: E402  (the path is set above)


def pytest_collection_modifyitems(items):
    """Tests that share one boot stay together, whatever the order of files."""
    items.sort(key=lambda i: (str(i.fspath), i.location[1]))


@pytest.fixture(scope="session", autouse=True)
def have_guest():
    if not os.path.exists(guest.path("guest.json")):
        pytest.exit("no guest in %s: run scripts/guest-fetch" % guest.DIR, 2)
    if not guest.IS_QEMU and not os.path.exists(guest.EMULATOR):
        pytest.exit("no emulator at %s: run make" % guest.EMULATOR, 2)


@pytest.fixture(scope="session")
def web():
    """An HTTP server on the host's loopback that serves known bytes; yields (port, text)."""
    text = "".join("line %06d of the page\n" % i for i in range(20000))

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = text.encode() if self.path == "/page" else b""
            self.send_response(200 if body else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1], text
    server.shutdown()
