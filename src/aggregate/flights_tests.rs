//! Tests of `flights`.
