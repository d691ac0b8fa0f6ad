//! Fuzzes [`cairn_store_fuzz::targets::car_v2`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    cairn_store_fuzz::targets::car_v2(data);
});
