//! Who asks, and what he may ask for. Handlers get a [`Viewer`], an [`Operator`], an [`Admin`] or an [`AccountOwner`],
//! and have no other way to the site: a handler that asks for none of them can't do anything.

use crate::local::LocalAdmin;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::header::{AUTHORIZATION, COOKIE, HOST};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use model::{Finding, FindingKind, Level, Subject};
use service::{
    AccountKeeper, AccountOwner, Actor, Admin, Error, NewSession, Operator, Service, Viewer,
};
use std::convert::Infallible;
use std::net::IpAddr;

/// What pages that load themselves again have in the address by which they do so: nobody uses a browser because of that.
pub(crate) const RELOAD: &str = "reload";

/// Where figures for Prometheus are.
const METRICS: &str = "/metrics";

/// What proxies add to what they pass on.
const PASSED_ON: [&str; 9] = [
    "forwarded",
    "via",
    "x-forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-server",
    "x-original-forwarded-for",
    "x-real-ip",
];

/// Whether a `Host` header names this host as only itself can.
fn is_loopback_name(host: &HeaderValue) -> bool {
    let Ok(host) = host.to_str() else { return false };
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    match name.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => name.eq_ignore_ascii_case("localhost"),
    }
}

/// Where a browser is that asks over the network. It stands in the extensions of a request; without it nobody is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Browser {
    /// Its address.
    pub address: IpAddr,
    /// Whether others can't hear what is said.
    pub is_encrypted: bool,
}

/// The site, behind the door.
#[derive(Clone)]
pub(crate) struct Front {
    service: Service,
}

impl Front {
    pub(crate) fn new(service: Service) -> Self {
        Self { service }
    }

    /// Logs a browser in.
    pub(crate) async fn log_in(
        &self,
        name: &str,
        password: String,
        from: &Asked,
    ) -> Result<NewSession, Error> {
        self.service.log_in(name, password, from.address(), &from.browser_name).await
    }

    /// Logs a browser in by the code of a link.
    pub(crate) async fn log_in_by_code(
        &self,
        code: &str,
        from: &Asked,
    ) -> Result<NewSession, Error> {
        self.service.log_in_by_code(code, from.address(), &from.browser_name).await
    }

    /// Ends the session of whoever asks.
    pub(crate) async fn log_out(&self, actor: &Actor) -> Result<(), Error> {
        self.service.log_out(actor).await
    }

    /// Whether there is any account.
    pub(crate) fn has_account(&self) -> bool {
        self.service.has_account()
    }

    /// Whether nothing keeps all machines from booting.
    pub(crate) async fn is_ready(&self) -> bool {
        let has_nbd_tls = self.service.options().nbd_ca.is_some();
        let stops_all = |found: &Finding| match found.kind {
            FindingKind::WebCertificateInvalid => false,
            FindingKind::NbdCertificateInvalid => has_nbd_tls,
            _ => found.level == Level::Alarm && matches!(found.subject, Subject::Server),
        };
        !self.service.findings().await.iter().any(stops_all)
    }

    fn who(&self, request: &Request, asked: &Asked) -> Option<Actor> {
        if let Some(admin) = request.extensions().get::<LocalAdmin>() {
            return Some(Actor::command(admin.uid));
        }
        let headers = request.headers();
        if let Some(authorization) = headers.get(AUTHORIZATION) {
            let (scheme, token) = authorization.to_str().ok()?.split_once(' ')?;
            let is_bearer = scheme.eq_ignore_ascii_case("bearer");
            return self.service.token_of(token.trim(), asked.address()).filter(|_| is_bearer);
        }
        let browser = asked.browser?;
        let session =
            cookie(headers, cookie_name(browser)).and_then(|secret| match asked.is_reload() {
                true => self.service.session_left_open(secret, Some(browser.address)),
                false => self.service.session_of(secret, Some(browser.address)),
            });
        session.or_else(|| asked.is_watcher(headers).then(Actor::watcher))
    }
}

/// The cookie of the session. Browsers take `__Host-` only over TLS, and then from this host alone; and some of them take no
/// `Secure` cookie over plain HTTP, which is on loopback addresses only.
const fn cookie_name(browser: Browser) -> &'static str {
    if browser.is_encrypted { "__Host-session" } else { "session" }
}

pub(crate) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let all = headers.get_all(COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    all.flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(of, _)| *of == name)
        .map(|(_, value)| value)
}

/// What is known of a request before anybody answers it.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    browser: Option<Browser>,
    browser_name: String,
    is_read: bool,
    /// Path and query, as they were asked for.
    target: String,
}

impl Asked {
    fn new(request: &Request) -> Self {
        let name = request.headers().get("user-agent").and_then(|name| name.to_str().ok());
        let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
        Self {
            browser: request.extensions().get::<Browser>().copied(),
            browser_name: name.unwrap_or_default().to_owned(),
            is_read: matches!(*request.method(), Method::GET | Method::HEAD),
            target: target.to_owned(),
        }
    }

    fn address(&self) -> Option<IpAddr> {
        self.browser.map(|browser| browser.address)
    }

    /// The page on which a browser goes on after its login.
    pub(crate) fn next(&self) -> &str {
        if self.is_read { &self.target } else { "/" }
    }

    /// Whether the browser asks by itself for a page that it shows already.
    fn is_reload(&self) -> bool {
        let query = self.target.split_once('?').map_or("", |(_, query)| query);
        self.is_read && query.split('&').any(|part| part == RELOAD)
    }

    /// Whether somebody only looks.
    pub(crate) fn is_read(&self) -> bool {
        self.is_read
    }

    pub(crate) fn is_for_programs(&self) -> bool {
        self.target.starts_with("/api/") || self.is_for_metrics()
    }

    fn is_for_metrics(&self) -> bool {
        self.target.split('?').next() == Some(METRICS)
    }

    /// Whether a program on this host watches. Behind a proxy on this host everybody would look like that.
    fn is_watcher(&self, headers: &HeaderMap) -> bool {
        let is_here = self.address().is_some_and(|it| it.to_canonical().is_loopback());
        let is_passed_on = PASSED_ON.iter().any(|name| headers.contains_key(*name));
        // A proxy may say nothing of itself, and passes on what its own clients call it.
        let is_called_here = headers.get(HOST).is_none_or(is_loopback_name);
        self.is_for_metrics() && is_here && is_called_here && !is_passed_on
    }

    /// The header that has the browser keep its session.
    pub(crate) fn keep(&self, session: &NewSession) -> HeaderValue {
        self.cookie(&session.secret, "")
    }

    /// The header that has the browser forget its session.
    pub(crate) fn forget(&self) -> HeaderValue {
        self.cookie("", "; Max-Age=0")
    }

    fn cookie(&self, value: &str, more: &str) -> HeaderValue {
        let is_encrypted = self.browser.is_some_and(|browser| browser.is_encrypted);
        let (name, secure) =
            if is_encrypted { ("__Host-session", "; Secure") } else { ("session", "") };
        let text = format!("{name}={value}; Path=/; HttpOnly; SameSite=Lax{secure}{more}");
        HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(""))
    }
}

/// Counts what is refused to whoever asks.
pub(crate) async fn count_refused(
    State(front): State<Front>,
    request: Request,
    next: Next,
) -> Response {
    let response = next.run(request).await;
    let reason = match response.status() {
        StatusCode::UNAUTHORIZED => "login",
        StatusCode::FORBIDDEN => "right",
        StatusCode::TOO_MANY_REQUESTS => "delay",
        _ => return response,
    };
    front.service.traffic().refused("pages", reason);
    response
}

/// Who asks, if anybody is known.
#[derive(Clone, Debug)]
pub(crate) struct Who(pub(crate) Option<Actor>);

/// Finds out who asks, for whatever answers.
pub(crate) async fn identify(
    State(front): State<Front>,
    mut request: Request,
    next: Next,
) -> Response {
    let asked = Asked::new(&request);
    let who = front.who(&request, &asked);
    request.extensions_mut().insert(Who(who));
    request.extensions_mut().insert(asked);
    next.run(request).await
}

impl FromRequestParts<Front> for Asked {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &Front) -> Result<Self, Infallible> {
        let empty = || Self {
            browser: None,
            browser_name: String::new(),
            is_read: false,
            target: "/".to_owned(),
        };
        Ok(parts.extensions.get().cloned().unwrap_or_else(empty))
    }
}

impl FromRequestParts<Front> for Who {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &Front) -> Result<Self, Infallible> {
        Ok(parts.extensions.get().cloned().unwrap_or(Self(None)))
    }
}

/// Somebody is not known, or may not do this.
pub(crate) struct Refused {
    pub(crate) asked: Asked,
    /// Why he may not; `None`: he is not known.
    pub(crate) error: Option<Error>,
    /// What he may do instead.
    pub(crate) viewer: Option<Viewer>,
}

impl Front {
    async fn allow<T>(
        &self,
        parts: &mut Parts,
        may: impl FnOnce(&Service, &Actor) -> Result<T, Error>,
    ) -> Result<T, Refused> {
        let Ok(asked) = Asked::from_request_parts(parts, self).await;
        let Ok(Who(who)) = Who::from_request_parts(parts, self).await;
        let Some(actor) = who else { return Err(Refused { asked, error: None, viewer: None }) };
        may(&self.service, &actor).map_err(|error| {
            let viewer = self.service.viewer(&actor).ok();
            Refused { asked, error: Some(error), viewer }
        })
    }
}

macro_rules! extracted {
    ($($what:ty, $may:expr;)*) => {
        $(impl FromRequestParts<Front> for $what {
            type Rejection = Refused;

            async fn from_request_parts(parts: &mut Parts, front: &Front) -> Result<Self, Refused> {
                front.allow(parts, $may).await
            }
        })*
    };
}

extracted! {
    Viewer, Service::viewer;
    Operator, Service::operator;
    Admin, Service::admin;
    AccountKeeper, Service::account_keeper;
    AccountOwner, Service::account_owner;
}

/// As it may stand in a query.
pub(crate) fn encoded(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
    let one = |byte: u8| match is_plain(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    text.bytes().map(one).collect()
}

/// Where somebody goes on after he has logged in: only to a page of ours.
pub(crate) fn next_page(next: &str) -> &str {
    let mut letters = next.chars();
    let is_ours = letters.next() == Some('/')
        && letters.next().is_none_or(|second| second != '/' && second != '\\')
        && next.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\')
        && !next.starts_with("/login");
    if is_ours { next } else { "/" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_the_login_only_pages_of_ours_come() {
        for next in ["/", "/machines", "/machines?state=failed", "/machines/lab-07?edit"] {
            assert_eq!(next_page(next), next);
        }
        for next in [
            "",
            "machines",
            "//evil.example",
            "/\\evil.example",
            "https://evil.example",
            "/\t/evil.example",
            "/a\r\nSet-Cookie: x",
            "/login?next=/login",
            "/ä",
        ] {
            assert_eq!(next_page(next), "/", "{next:?}");
        }
        assert_eq!(encoded("/machines?state=up&x"), "/machines%3Fstate%3Dup%26x");
    }

    #[test]
    fn the_session_is_found_among_other_cookies() {
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, HeaderValue::from_static("a=b; session=one"));
        headers.append(COOKIE, HeaderValue::from_static("__Host-session=two;c"));
        assert_eq!(cookie(&headers, "session"), Some("one"));
        assert_eq!(cookie(&headers, "__Host-session"), Some("two"));
        assert_eq!(cookie(&headers, "ession"), None);
    }
}
