//! Fuzzes [`cairn_node_fuzz::targets::dnslink`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    cairn_node_fuzz::targets::dnslink(data);
});
