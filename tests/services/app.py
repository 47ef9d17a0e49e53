"""The application of the end-to-end tests: slow routes, a database pool, an outgoing call, and the services of `users`.

It is what Forebay stands in front of in production: FastAPI on uvicorn, aiohttp for calls, asyncpg for PostgreSQL.

    app.py [--database URL] [--pool N] [--acquire-timeout SECONDS] [--proxy-to URL]

It listens on a free loopback port, prints `listening on http://127.0.0.1:PORT` when it answers, and ends when its
standard input closes, so that it cannot outlive the test that started it.
"""

import argparse
import asyncio
import contextlib
import socket
import sys
import threading

import aiohttp
import asyncpg
import fastapi
import uvicorn

import users as users_service

# How long a query of /users holds its connection: long enough for the requests behind it to notice.
QUERY_SECONDS = 0.2

# How long a report holds one.
REPORT_SECONDS = 1


def make_app(arguments, announce):
    @contextlib.asynccontextmanager
    async def lifespan(app):
        app.state.session = aiohttp.ClientSession()
        app.state.pool = None
        if arguments.database:
            app.state.pool = await asyncpg.create_pool(
                arguments.database, min_size=arguments.pool, max_size=arguments.pool
            )
        announce()
        yield
        if app.state.pool:
            await app.state.pool.close()
        await app.state.session.close()

    app = fastapi.FastAPI(lifespan=lifespan, openapi_url=None)
    app.state.acquire_timeouts = 0

    @app.get("/")
    async def root():
        return {"message": "Hello World"}

    @app.get("/slow")
    async def slow():
        await asyncio.sleep(2)
        return {"message": "slow"}

    @app.get("/one-second")
    async def one_second():
        await asyncio.sleep(1)
        return {"message": "one second"}

    @app.get("/proxy")
    async def proxy():
        async with app.state.session.get(arguments.proxy_to) as response:
            return {"proxy": await response.json()}

    @app.get("/users")
    async def users():
        try:
            async with app.state.pool.acquire(timeout=arguments.acquire_timeout) as connection:
                rows = await connection.fetch(
                    "SELECT id, name, pg_sleep($1)::text FROM users ORDER BY id", QUERY_SECONDS / 3
                )
        except TimeoutError:
            app.state.acquire_timeouts += 1
            raise fastapi.HTTPException(500, "no database connection within the time")
        return [{"id": row["id"], "name": row["name"]} for row in rows]

    @app.get("/reports/{name}")
    async def report(name: str):
        try:
            async with app.state.pool.acquire(timeout=arguments.acquire_timeout) as connection:
                count = await connection.fetchval("SELECT count(*) FROM users, pg_sleep($1)", REPORT_SECONDS)
        except TimeoutError:
            app.state.acquire_timeouts += 1
            raise fastapi.HTTPException(500, "no database connection within the time")
        return {"report": name, "users": count}

    @app.get("/pool-errors")
    async def pool_errors():
        return {"acquire_timeouts": app.state.acquire_timeouts}

    app.include_router(users_service.router)
    return app


def stop_with_standard_input(server):
    def wait():
        sys.stdin.read()
        server.should_exit = True
        server.force_exit = True

    threading.Thread(target=wait, daemon=True).start()


def listen():
    # The protocol is named because asyncio looks at it: only then it switches Nagle's algorithm off for accepted
    # connections, as it does for the sockets that uvicorn opens by itself. With it, the second of two writes waits
    # 40 ms for the acknowledgement of the first.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", 0))
    listener.listen(4096)
    return listener


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--database")
    parser.add_argument("--pool", type=int, default=5)
    parser.add_argument("--acquire-timeout", type=float, default=0.3)
    parser.add_argument("--proxy-to")
    arguments = parser.parse_args()

    listener = listen()
    address = "http://127.0.0.1:%d" % listener.getsockname()[1]
    app = make_app(arguments, lambda: print("listening on", address, flush=True))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_keep_alive=60))
    stop_with_standard_input(server)
    server.run(sockets=[listener])


if __name__ == "__main__":
    main()
