//! End to end, against real services that the tests start: FastAPI on uvicorn, asyncpg on PostgreSQL, Python's
//! synchronous server, Prometheus, Chromium. `services` shows the services alone, the others stand Forebay in front of them.

mod aggregate;
mod dashboards;
mod demo;
mod histograms;
mod origin;
mod page;
mod pictures;
mod prometheus;
mod rules;
mod services;
mod systemd;
