//! See `nanokimi_fuzz::prompt`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nanokimi_fuzz::prompt(data));
