//! The one integration-test binary: `cargo test --test it`, a module for each part.

mod boundaries;
mod config;
mod corpus;
mod e2e;
mod ops;
mod readme;
mod support;
