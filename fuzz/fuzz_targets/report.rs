//! Words of machines, acknowledgements, orders, host segments, command lines, module indexes, passwords and echoes of
//! the initrd.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = initcfg::Word::parse(bytes);
    let _ = initcfg::Ack::parse(bytes);
    let _ = initcfg::PowerOrder::parse(bytes);
    let _ = initcfg::HostConfig::parse(bytes);
    let _ = initcfg::unseal(bytes);
    let packet_bytes = bytes.len().try_into().unwrap_or(u16::MAX);
    let _ = wire::Echo { identifier: 0, sequence: 0, packet_bytes }.is_answered_by(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = initcfg::BootConfig::parse(text);
        let _ = initcfg::ModuleIndex::parse(text);
        let _ = text.parse::<initcfg::RescuePassword>();
    }
});
