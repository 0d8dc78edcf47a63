//! What holds for every answer: who may ask, and what browsers may do with it.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, HeaderName, HeaderValue, ORIGIN, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::net::IpAddr;
use std::sync::Arc;
use tower_http::csrf::ProtectionError;

/// No scripts, no frames, nothing from elsewhere. Icons are part of the style sheet.
const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self' data:; \
                      form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// Longest name of a host or origin that is told.
const TOLD_BYTES_MAX: usize = 64;

/// Refuses foreign names and adds the security headers.
pub(crate) async fn guard(
    State(names): State<Arc<[String]>>,
    request: Request,
    next: Next,
) -> Response {
    // A page of a stranger whose name leads to our address could read everything here (DNS rebinding);
    // the browser then sends that name.
    let host = request.headers().get(HOST).map(HeaderValue::as_bytes);
    let (host_told, origin_told) = (told(host), told(origin(&request)));
    let mut response = match host {
        Some(host) if !is_own_name(host, &names) => (
            StatusCode::MISDIRECTED_REQUEST,
            "This is a Bootlace server. It answers only to its IP address, localhost, its own host name, and the \
             names below [web] in its configuration: open the page under one of those.\n",
        )
            .into_response(),
        _ => next.run(request).await,
    };
    if response.extensions().get::<ProtectionError>().is_some() {
        tracing::warn!(
            host = host_told,
            origin = origin_told,
            "a page of another server wanted to change something: refused. If a proxy is before this one, have it pass \
             on the Host header that browsers send, and add that name to names below [web]"
        );
        let text = format!(
            "Nothing was done: a page at {origin_told} sent this, and it came to this server as one for {host_told}. If a \
             proxy is before this Bootlace server, have it pass on the Host header that browsers send, and add that name \
             to names below [web] in bootlace.toml: bootlace help tls.\n"
        );
        response = (StatusCode::FORBIDDEN, text).into_response();
    }
    let fixed: [(HeaderName, &'static str); 5] = [
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ];
    let headers = response.headers_mut();
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

fn origin(request: &Request) -> Option<&[u8]> {
    request.headers().get(ORIGIN).map(HeaderValue::as_bytes)
}

/// What a stranger sent, as logs and terminals can show it.
fn told(sent: Option<&[u8]>) -> String {
    let Some(sent) = sent else { return "nowhere".to_owned() };
    let shown = &sent[..sent.len().min(TOLD_BYTES_MAX)];
    shown.escape_ascii().to_string()
}

#[expect(
    clippy::disallowed_methods,
    reason = "what this computer is called is no state of the site"
)]
fn is_own_name(host: &[u8], names: &[String]) -> bool {
    let Ok(host) = std::str::from_utf8(host) else { return false };
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    if name.parse::<IpAddr>().is_ok() {
        return true;
    }
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    if name == "localhost" || name.ends_with(".localhost") || names.contains(&name) {
        return true;
    }
    let Ok(own) = std::fs::read_to_string("/proc/sys/kernel/hostname") else { return false };
    is_name_of(&name, &own.trim().to_ascii_lowercase(), || {
        let resolver = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        search_domains(&resolver.to_ascii_lowercase())
    })
}

/// Domains that nobody can buy: a stranger's page can't have a name in them.
const LOCAL_DOMAINS: [&str; 4] = ["local", "lan", "internal", "home.arpa"];

/// Whether `name` is the host name `own`, bare or in a domain of this site.
///
/// Not in any domain: host names are easily guessed, and `debian.evil.example` costs nothing.
fn is_name_of(name: &str, own: &str, domains: impl FnOnce() -> Vec<String>) -> bool {
    let bare = own.split('.').next().unwrap_or(own);
    if bare.is_empty() {
        return false;
    }
    if name == own || name == bare {
        return true;
    }
    let domain = name.strip_prefix(bare).and_then(|rest| rest.strip_prefix('.'));
    domain.is_some_and(|domain| {
        LOCAL_DOMAINS.contains(&domain) || domains().iter().any(|own| own == domain)
    })
}

/// The domains that this host itself completes names with.
fn search_domains(resolver: &str) -> Vec<String> {
    resolver
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            matches!(words.next(), Some("search" | "domain")).then_some(words)
        })
        .flatten()
        .map(|domain| domain.trim_end_matches('.').to_owned())
        .filter(|domain| !domain.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_own_names_are_answered() {
        for host in ["127.0.0.1:8080", "[::1]:8080", "10.0.0.1", "localhost:8080", "a.localhost"] {
            assert!(is_own_name(host.as_bytes(), &[]), "{host}");
        }
        for host in ["evil.example", "evil.example:8080", "", "localhost.evil.example", "[::1"] {
            let expected = host == "[::1";
            assert_eq!(is_own_name(host.as_bytes(), &[]), expected, "{host}");
        }
        assert!(!is_own_name(&[0xff, 0xfe], &[]));
        let names = ["boot.school.example".to_owned()];
        assert!(is_own_name(b"Boot.school.example.:8443", &names));
        assert!(!is_own_name(b"evil.boot.school.example", &names));
    }

    #[test]
    fn a_guessed_host_name_in_a_strangers_domain_is_foreign() {
        let domains =
            || search_domains("nameserver 10.0.0.1\nsearch school.example. lab.example\n");
        for name in ["debian", "debian.local", "debian.lan", "debian.school.example"] {
            assert!(is_name_of(name, "debian", domains), "{name}");
        }
        assert!(is_name_of("debian.own.example", "debian.own.example", Vec::new));
        assert!(is_name_of("debian", "debian.own.example", Vec::new));
        for name in ["debian.evil.example", "debianx.local", "x.debian.local", "debian.", ""] {
            assert!(!is_name_of(name, "debian", domains), "{name}");
        }
        assert!(!is_name_of("", "", domains));
        assert!(!is_name_of(".school.example", "", domains));
    }
}
