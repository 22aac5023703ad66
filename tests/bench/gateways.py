"""What the edge is compared with in the same run: nothing at all, nginx, its own protocols without what governs, rivals."""

import resource
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.bench import rivals, stack
from tests.bench.processes import MODULE, Gateway, Provider, alone, process, told
from tests.bench.rivals import Absent
from tests.fixtures.ports import free_port

NGINX = """
worker_processes 1; daemon off; pid {dir}/nginx.pid; error_log stderr; worker_rlimit_nofile {files};
events {{ worker_connections {connections}; }}
http {{
  access_log {dir}/access.log; client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy;
  fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
  client_max_body_size 32m; client_body_buffer_size 1m; keepalive_requests 1000000; proxy_read_timeout 900s;
  upstream provider {{ server 127.0.0.1:{upstream}; keepalive 64; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    location / {{ proxy_pass http://provider; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; }}
  }}
}}
"""


def nginx_binary() -> str:
    """Empty when it is not installed."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin") or ""


@contextmanager
def nginx(folder: Path, upstream: int) -> Iterator[Gateway]:
    binary, port = nginx_binary(), free_port()
    if not binary:
        raise Absent("not installed: apt-get install nginx-light, or any other way to put nginx on the path")
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    config = folder / "nginx.conf"
    config.write_text(
        NGINX.format(dir=folder, port=port, upstream=upstream, files=files, connections=min(files, 20_000))
    )
    log = folder / "nginx.log"
    with process(binary, "-p", str(folder), "-c", str(config), log=log) as running:
        deadline = time.monotonic() + 10
        while not (folder / "nginx.pid").exists():
            if running.poll() is not None or time.monotonic() > deadline:
                raise Absent(f"did not start: {log.read_text()[-300:]}")
            time.sleep(0.02)
        what = "one worker, proxy_buffering off, 64 connections kept to the provider, access log"
        yield Gateway(name="nginx", what=what, port=port, processes=alone("nginx", running))


@contextmanager
def wire(upstream: int) -> Iterator[Gateway]:
    with process(*MODULE, "tests.bench.wire", str(upstream)) as running:
        what = "the edge with governance off: its client and upstream protocols, and nothing between them"
        yield Gateway(name="wire", what=what, port=int(told(running)), processes=alone("wire", running))


def direct(provider: Provider) -> Gateway:
    """No gateway: what the load and the provider themselves take and cost."""
    what = "no gateway: the load talks to the provider, whose CPU this is"
    return Gateway(name="direct", what=what, port=provider.port, processes=provider.processes)


class Field:
    """All that run, started once for the whole run: none is favoured by a fresh process."""

    def __init__(self, folder: Path, provider: Provider, rivals_folder: Path | None) -> None:
        self.present: dict[str, Gateway] = {"direct": direct(provider)}
        self.absent: dict[str, str] = {}
        self._folder, self._provider, self._rivals = folder, provider, rivals_folder

    def start(self, running: ExitStack) -> None:
        """Whoever cannot start is named in `absent`; the edge must."""
        port = self._provider.port
        self.present["edge"] = running.enter_context(stack.running(self._folder / "edge", port))
        self.present["asked"] = running.enter_context(stack.running(self._folder / "asked", port, asked=True))
        self.present["wire"] = running.enter_context(wire(port))
        try:
            self.present["nginx"] = running.enter_context(nginx(self._folder, port))
        except Absent as reason:
            self.absent["nginx"] = str(reason)
        for name, start in rivals.STARTS.items():
            try:
                home = rivals.environment(self._rivals, name)
                self.present[name] = running.enter_context(start(home, self._folder, port))
            except Absent as reason:
                self.absent[name] = str(reason)
