//! Fuzzes [`cairn_store_fuzz::inside::kubo`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    cairn_store_fuzz::inside::kubo(data);
});
