//! Fuzzes [`cairn_node_fuzz::targets::dht_message`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    cairn_node_fuzz::targets::dht_message(data);
});
