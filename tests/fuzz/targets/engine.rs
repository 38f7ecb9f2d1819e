//! See `nanokimi_fuzz::engine`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nanokimi_fuzz::engine(data));
