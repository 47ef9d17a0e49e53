//! The one integration-test binary: `cargo test --test it`.

mod e2e;
mod support;
