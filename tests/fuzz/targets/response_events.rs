//! See `nanokimi_fuzz::response_events`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nanokimi_fuzz::response_events(data));
