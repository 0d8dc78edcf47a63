//! A directory that answers anything, and filters that somebody writes.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = ldap::message_length(bytes);
    let _ = ldap::Message::parse(bytes);
    let Ok(text) = core::str::from_utf8(bytes) else { return };
    if let Ok(filter) = ldap::Filter::parse(text) {
        let (base, scope) = ("", ldap::Scope::Base);
        let (entries_max, seconds_max, attributes) = (1, 1, &["1.1"]);
        let request =
            ldap::Request::Search { base, scope, entries_max, seconds_max, filter: &filter, name: text, attributes };
        let written = request.to_bytes(1);
        assert!(matches!(ldap::message_length(&written), Ok(Some(length)) if length == written.len()) || written.len() > ldap::MESSAGE_BYTES_MAX);
    }
    if let Some(pattern) = ldap::DnPattern::new("uid={name},dc=x") {
        let _ = pattern.of(text);
    }
});
