"""The tutorial's own aggregator: FastAPI on uvicorn, aiohttp, `asyncio.gather`.

    aggregator.py --listen HOST:PORT --upstream HOST:PORT

`/N/PATH` is answered with an object of the answers to `/PATH?n=0` … `/PATH?n=N-1`, all asked at once. Started by
benches/run.py with the Python of the test services (target/services-venv).
"""

import argparse
import asyncio
import contextlib

import aiohttp
import fastapi
import uvicorn


def make_app(upstream):
    @contextlib.asynccontextmanager
    async def lifespan(app):
        # Without its own limit of 100 connections, which would let 1000 calls wait for each other.
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=250)) as session:
            app.state.session = session
            yield

    app = fastapi.FastAPI(lifespan=lifespan, openapi_url=None)

    async def call(path, nth):
        async with app.state.session.get(f"http://{upstream}/{path}", params={"n": nth}) as response:
            response.raise_for_status()
            return await response.json()

    @app.get("/{count:int}/{path:path}")
    async def aggregate(count: int, path: str):
        parts = await asyncio.gather(*(call(path, nth) for nth in range(count)))
        return {f"s{nth}": part for nth, part in enumerate(parts)}

    return app


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--listen", required=True)
    parser.add_argument("--upstream", required=True)
    arguments = parser.parse_args()
    host, port = arguments.listen.rsplit(":", 1)
    uvicorn.run(make_app(arguments.upstream), host=host, port=int(port), log_level="warning", timeout_keep_alive=300)


if __name__ == "__main__":
    main()
