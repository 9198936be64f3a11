//! libFuzzer on `web_path` of tests/wire/targets.rs.
#![no_main]
libfuzzer_sys::fuzz_target!(|input: &[u8]| tandem_fuzz::targets::web_path(input));
