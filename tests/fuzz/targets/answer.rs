//! See `nanokimi_fuzz::answer`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nanokimi_fuzz::answer(data));
