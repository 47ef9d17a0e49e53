//! End to end, against real services that the tests start: FastAPI on uvicorn, asyncpg on PostgreSQL, Python's
//! synchronous server, Prometheus. `services` shows the services alone, the others stand Forebay in front of them.

mod aggregate;
mod demo;
mod origin;
mod prometheus;
mod services;
