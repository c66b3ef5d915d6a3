"""A real HTTP server in the place of a judge."""

import contextlib
import http.server
import json
import threading


@contextlib.contextmanager
def server(answer):
    """A real HTTP server; `answer(handler, request)` writes the response, `request` is the JSON body."""
    requests = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            requests.append((self.path, dict(self.headers), body))
            with contextlib.suppress(ConnectionError):  # the client may have given up
                answer(self, body)

        def do_GET(self):
            requests.append((self.path, dict(self.headers), None))
            self.send_error(404)

        def log_message(self, *args):
            pass

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{httpd.server_port}/v1", requests
    finally:
        httpd.shutdown()
        httpd.server_close()
        thread.join()


def send(handler, payload, status=200, headers=()):
    handler.send_response(status)
    for name, value in headers:
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(payload)))
    handler.end_headers()
    handler.wfile.write(payload)


def say(content):
    """Answer in the shape of a chat completion, with this text as the message."""
    return lambda handler, body: send(
        handler,
        json.dumps({"choices": [{"message": {"role": "assistant", "content": content}}]}).encode(),
    )
