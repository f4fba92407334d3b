//! Feeds `pleach_tests::fuzzing::ticket`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pleach_tests::fuzzing::ticket(data));
