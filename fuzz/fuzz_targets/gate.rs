//! Feeds `pleach_tests::fuzzing::gate`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pleach_tests::fuzzing::gate(data));
