//! Fuzz target; the check and what it proves are in `forebay::message::fuzzing`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| forebay::message::fuzzing::response_head(data));
