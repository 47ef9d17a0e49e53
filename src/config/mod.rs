//! The configuration: text -> `raw` (as written, with spans) -> `model` (as used). Knows nothing of tokio,
//! pingora or prometheus.

pub mod model;

pub use model::Config;
