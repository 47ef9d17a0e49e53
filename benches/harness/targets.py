"""What is measured: how each proxy is started, in front of the same static upstream.

Every proxy has one worker, keeps upstream connections alive, and listens on a fixed loopback port below the
ephemeral range, so that `benches/forebay.toml` is an ordinary file that anybody can run.
"""

from pathlib import Path

from .process import LOAD_CPU, PROXY_CPU, BenchError, Server

BENCHES = Path(__file__).resolve().parent.parent
REPOSITORY = BENCHES.parent
UPSTREAM_PORT = 18099
HOLD_PORT = 18098
PARTS_PORT = 18097
SIZES = {"1k": 1024, "64k": 64 * 1024, "1m": 1024 * 1024}

PORTS = {
    "forebay": 18080,
    "nginx": 18081,
    "haproxy": 18082,
    "pingora_proxy": 18083,
    "pingora_core": 18084,
    "own_codec": 18085,
    "forward": 18086,
    "forebay_aggregate": 18080,
    "fanout": 18087,
    "aiohttp": 18088,
    "direct": UPSTREAM_PORT,
}
LABELS = {
    "forebay": "**Forebay**, everything on",
    "nginx": "nginx, limits and access log",
    "haproxy": "HAProxy",
    "pingora_proxy": "bare pingora-proxy",
    "pingora_core": "pingora-core sessions (prototype)",
    "own_codec": "own codec (prototype)",
    "forward": "raw byte forwarder",
    "direct": "no proxy (upstream's own cost)",
    "forebay_aggregate": "**Forebay**",
    "fanout": "by hand with hyper-util",
    "aiohttp": "FastAPI and aiohttp",
}
STANDARD = ["nginx", "haproxy", "pingora_proxy", "forward", "forebay"]
PROTOTYPES = ["own_codec", "pingora_core"]
AGGREGATORS = ["forebay_aggregate", "fanout", "aiohttp"]

# `/N/PATH` is answered from N sources by each of the aggregators.
SOURCE_COUNTS = [3, 10, 100, 1000]
# For callgrind: ten sources that answer one after the other, so that each answer is a wake-up of its own.
STAGGERED = [20 + 3 * nth for nth in range(10)]
PYTHON = REPOSITORY / "target" / "services-venv" / "bin" / "python"
# `scripts/bench-setup.sh oha` puts it there.
OHA = str(REPOSITORY / "target" / "tools" / "oha" / "bin" / "oha")

NGINX_COMMON = """
worker_processes 1;
worker_rlimit_nofile 16384;
daemon off;
master_process off;
pid {dir}/{name}.pid;
error_log {dir}/{name}.error.log crit;
events {{ worker_connections 12000; }}
"""

# `master_process off`: one process, one pid to measure. The upstream logs nothing.
NGINX_UPSTREAM = NGINX_COMMON + """
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_timeout 300s;
    keepalive_requests 100000000;
    client_body_temp_path {dir}/upstream.body;
    proxy_temp_path {dir}/upstream.proxy;
    open_file_cache max=16 inactive=600s;
    server {{
        listen 127.0.0.1:{port} backlog=8192;
        root {root};
        location /hold {{
            proxy_pass http://127.0.0.1:{hold};
            proxy_read_timeout 60s;
        }}
        location /late {{
            proxy_pass http://127.0.0.1:{hold};
        }}
    }}
}}
"""

# The rate limit is far above any load here: it is counted for each request and never rejects.
NGINX_PROXY = NGINX_COMMON + """
http {{
    access_log {dir}/nginx.access.log combined;
    keepalive_timeout 300s;
    keepalive_requests 100000000;
    client_body_temp_path {dir}/nginx.body;
    proxy_temp_path {dir}/nginx.proxy;
    limit_req_zone $binary_remote_addr zone=rate:10m rate=1000000r/s;
    limit_conn_zone $server_name zone=inflight:10m;
    upstream files {{
        server 127.0.0.1:{upstream};
        keepalive 1024;
        keepalive_requests 100000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=8192;
        server_name bench;
        location / {{
            limit_req zone=rate burst=100000 nodelay;
            limit_conn inflight 10000;
            proxy_pass http://files;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_read_timeout 15s;
        }}
    }}
}}
"""

HAPROXY = """
global
    nbthread 1
    maxconn 8000
defaults
    mode http
    timeout connect 500ms
    timeout client 300s
    timeout http-keep-alive 300s
    timeout server 15s
    http-reuse always
frontend bench
    bind 127.0.0.1:{port} backlog 8192
    default_backend files
backend files
    server one 127.0.0.1:{upstream} pool-max-conn 1024
"""

FOREBAY_AGGREGATE = """
[route.{name}]
path          = "{path}"
deadline      = "15s"
rate_limit    = {{ rate = "1000000/s", burst = 100_000, key = "client_ip" }}
max_in_flight = 4000
queue         = {{ capacity = 1000, timeout = "1s" }}
"""
FOREBAY_SOURCE = """
[route.{name}.aggregate.source.s{nth}]
upstream = "files"
path     = "{path}"
query    = {{ n = "{nth}" }}
"""


class Targets:
    """Starts targets with their files in one scratch folder."""

    def __init__(self, scratch, comparators, forebay):
        self.scratch = Path(scratch)
        self.comparators = Path(comparators)
        self.forebay = Path(forebay)
        self.write_static_files()

    def write_static_files(self):
        root = self.scratch / "root"
        root.mkdir()
        for name, size in SIZES.items():
            (root / name).write_bytes(b"." * size)

    def start_upstream(self, cpu=LOAD_CPU):
        values = {"name": "upstream", "port": UPSTREAM_PORT, "hold": HOLD_PORT, "root": self.scratch / "root"}
        config = self.write("upstream.conf", NGINX_UPSTREAM, **values)
        return self.start("upstream", ["nginx", "-c", config, "-p", self.scratch], UPSTREAM_PORT, cpu)

    def start_hold(self):
        """Answers `/late` after 2 ms, and `/hold` never."""
        command = [self.comparator("deadlines"), "upstream", "--listen", f"127.0.0.1:{HOLD_PORT}"]
        return self.start("hold", command, HOLD_PORT, LOAD_CPU)

    def start_parts(self):
        """What the aggregators ask: 1 KiB of JSON, of `/after/MILLIS` so much later."""
        command = [self.comparator("fanout"), "upstream", "--listen", f"127.0.0.1:{PARTS_PORT}"]
        return self.start("parts", command, PARTS_PORT, LOAD_CPU)

    def start_proxy(self, name, wrapper=(), ready_seconds=20):
        """`wrapper` comes before the command: valgrind and its options."""
        command = [*wrapper, *self.command(name)]
        return self.start(name, command, PORTS[name], PROXY_CPU, ready_seconds)

    def command(self, name):
        if name == "nginx":
            config = self.write("nginx.conf", NGINX_PROXY, name="nginx", port=PORTS["nginx"], upstream=UPSTREAM_PORT)
            return ["nginx", "-c", config, "-p", self.scratch]
        if name == "haproxy":
            config = self.write("haproxy.cfg", HAPROXY, port=PORTS["haproxy"], upstream=UPSTREAM_PORT)
            return ["haproxy", "-db", "-f", config]
        if name == "forebay":
            return self.forebay_command(BENCHES / "forebay.toml")
        if name in AGGREGATORS:
            return self.aggregator_command(name)
        listen, upstream = f"127.0.0.1:{PORTS[name]}", f"127.0.0.1:{UPSTREAM_PORT}"
        return [self.comparator(name), "--listen", listen, "--upstream", upstream]

    def aggregator_command(self, name):
        listen, upstream = f"127.0.0.1:{PORTS[name]}", f"127.0.0.1:{PARTS_PORT}"
        if name == "forebay_aggregate":
            return self.forebay_command(self.write_aggregate_config(upstream))
        if name == "fanout":
            return [self.comparator("fanout"), "serve", "--listen", listen, "--upstream", upstream]
        if not PYTHON.is_file():
            raise BenchError(f"{PYTHON} is missing: run scripts/bench-setup.sh")
        return [PYTHON, BENCHES / "aggregator.py", "--listen", listen, "--upstream", upstream]

    def write_aggregate_config(self, upstream):
        """`forebay.toml` in front of the other upstream, with routes that aggregate. Its `/*` stays: the plain request."""
        parts = [(BENCHES / "forebay.toml").read_text().replace(f"127.0.0.1:{UPSTREAM_PORT}", upstream)]
        for count in SOURCE_COUNTS:
            name = f"of_{count}"
            parts.append(FOREBAY_AGGREGATE.format(name=name, path=f"/{count}/*"))
            parts += [FOREBAY_SOURCE.format(name=name, nth=nth, path="/{rest}") for nth in range(count)]
        parts.append(FOREBAY_AGGREGATE.format(name="staggered", path="/staggered"))
        for nth, millis in enumerate(STAGGERED):
            parts.append(FOREBAY_SOURCE.format(name="staggered", nth=nth, path=f"/after/{millis}"))
        path = self.scratch / "aggregate.toml"
        path.write_text("".join(parts))
        return path

    def forebay_command(self, config):
        if not self.forebay.is_file():
            raise BenchError(f"{self.forebay} is missing: build it with `cargo build --release`")
        return [self.forebay, "run", "-c", config]

    def comparator(self, name):
        path = self.comparators / name
        if not path.is_file():
            raise BenchError(f"{path} is missing: run scripts/bench-setup.sh")
        return path

    def start(self, name, command, port, cpu, ready_seconds=20):
        # A fixed environment; `benches/forebay.toml` takes the folder of its access log from it.
        env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "FOREBAY_BENCH_DIR": str(self.scratch)}
        return Server(name, command, port, cpu, self.scratch, env, ready_seconds)

    def write(self, file_name, template, **values):
        path = self.scratch / file_name
        path.write_text(template.format(dir=self.scratch, **values))
        return path
