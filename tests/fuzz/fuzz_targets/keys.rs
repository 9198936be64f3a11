//! libFuzzer on `keys` of tests/wire/targets.rs.
#![no_main]
libfuzzer_sys::fuzz_target!(|input: &[u8]| tandem_fuzz::targets::keys(input));
