//! Fuzzes [`cairn_store_fuzz::targets::dag_json`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    cairn_store_fuzz::targets::dag_json(data);
});
