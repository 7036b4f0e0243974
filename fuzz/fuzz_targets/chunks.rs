#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| grid::fuzz::chunks(data));
