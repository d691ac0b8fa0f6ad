//! Fuzzes [`cairn_node_fuzz::targets::ipns_record`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    cairn_node_fuzz::targets::ipns_record(data);
});
