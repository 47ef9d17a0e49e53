//! Fuzz target; the check and what it proves are in `forebay::fuzzing`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| forebay::fuzzing::aggregate_merge(data));
