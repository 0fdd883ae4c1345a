"""An S3-compatible server on loopback: moto's, made to judge conditions and write in one step, as S3 does."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.request import Request, urlopen

from botocore.session import Session
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

BUCKET = "quantum-lake"
KEYS = {"AWS_ACCESS_KEY_ID": "test-key", "AWS_SECRET_ACCESS_KEY": "test-secret-7d1f"}


@dataclass
class ObjectStore:
    """A running server; what is asked of it passes `before` and `after`, which may answer with a failure instead."""

    url: str
    before: Callable[[dict[str, Any]], str | None] = field(default=lambda _: None)
    after: Callable[[dict[str, Any]], str | None] = field(default=lambda _: None)

    def address(self, prefix: str, bucket: str = BUCKET) -> str:
        """Return what QT_LAKE says for a lake here."""
        return f"s3://{bucket}/{prefix}?endpoint_override={self.url}"

    @property
    def client(self) -> Any:
        """A client of its own, to look and to meddle with."""
        return Session().create_client(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
        )

    def require_keys(self, *, after: int) -> None:
        """Refuse keys that nobody issued, from so many requests on."""
        headers = {"Content-Type": "text/plain"}
        request = Request(f"{self.url}/moto-api/reset-auth", data=str(after).encode(), headers=headers, method="POST")
        urlopen(request, timeout=10).close()


@contextmanager
def object_store() -> Iterator[ObjectStore]:
    """
    Serve until the end of the block.

    moto judges If-Match and If-None-Match, but in another step than it writes, so that two threads can both pass. S3
    promises one step: the requests therefore go through one lock.
    """
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    application = DomainDispatcherApplication(create_backend_app)
    one_at_a_time = threading.Lock()

    def serve(environ: dict[str, Any], start_response: Any) -> Any:
        heads: list[Any] = []
        with one_at_a_time:
            failed = store.before(environ)
            if failed is None:
                answer = list(application(environ, lambda *head: heads.append(head)))
                failed = store.after(environ)
            if failed is not None:
                start_response(failed, [("Content-Length", "0")])
                return [b""]
            start_response(*heads[-1])
            return answer

    server = make_server("127.0.0.1", 0, serve, threaded=True)
    store = ObjectStore(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        # All of moto's servers in one process share their buckets.
        urlopen(Request(f"{store.url}/moto-api/reset", method="POST"), timeout=10).close()
        store.client.create_bucket(Bucket=BUCKET)
        yield store
    finally:
        server.shutdown()
        thread.join(timeout=10)
        server.server_close()
