//! The one integration-test binary: `cargo test --test it`, a module for each part.

mod aggregate;
mod boundaries;
mod config;
mod corpus;
mod e2e;
mod examples;
mod faults;
mod front;
mod licences;
mod load;
mod ops;
mod packaging;
mod readme;
mod support;
