//! See `nanokimi_fuzz::asked`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nanokimi_fuzz::asked(data));
