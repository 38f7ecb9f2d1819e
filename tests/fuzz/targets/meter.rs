//! See `nanokimi_fuzz::meter`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nanokimi_fuzz::meter(data));
