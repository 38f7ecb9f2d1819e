//! See `nanokimi_fuzz::proxy`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nanokimi_fuzz::proxy(data));
