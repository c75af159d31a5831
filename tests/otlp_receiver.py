"""What a collector does with OTLP over HTTP: in a thread of the test, or as a process that writes a line for each span.

No collector is to be had from PyPI or Debian; this one reads the protocol's own messages.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span


def read(body: bytes) -> Iterator[dict[str, Any]]:
    """The spans of one request."""
    request = ExportTraceServiceRequest.FromString(body)
    for resource in request.resource_spans:
        about = {each.key: each.value.string_value for each in resource.resource.attributes}
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield {
                    "name": span.name,
                    "kind": Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
                    "span": span.span_id.hex(),
                    "trace": span.trace_id.hex(),
                    "links": [link.span_id.hex() for link in span.links],
                    "service": f"{about.get('service.name')} {about.get('service.version')}",
                    "status": span.status.message,
                    "schema": scope.schema_url,
                }


def _server(take: Callable[[dict[str, Any]], object]) -> HTTPServer:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            for span in read(self.rfile.read(int(self.headers["Content-Length"]))):
                take(span)
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200 if self.path == "/v1/traces" else 404)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    return HTTPServer(("127.0.0.1", 0), Handler)


@contextmanager
def received() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """An endpoint, and the spans that came there."""
    spans: list[dict[str, Any]] = []
    server = _server(spans.append)
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", spans
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


if __name__ == "__main__":
    collector = _server(lambda span: print(json.dumps(span), flush=True))
    print(collector.server_port, file=sys.stderr, flush=True)
    collector.serve_forever()
