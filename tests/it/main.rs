//! The one integration-test binary; a module for each part.

mod config;
mod corpus;
