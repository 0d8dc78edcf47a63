//! The pages of a setup: the same steps as in a terminal, for one browser that was let in.

use crate::front::{Browser, cookie};
use crate::guard;
use crate::pages::{render, style};
use crate::problem;
use askama::Template;
use axum::extract::{Extension, Query, State};
use axum::http::header::{HOST, LOCATION, SET_COOKIE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Form, Router};
use std::net::IpAddr;
use std::sync::Arc;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::csrf::CsrfLayer;

/// Longest body of a request: a name, a path and a password.
const BODY_BYTES_MAX: usize = 16 * 1024;

/// How often the page is loaded again while something is done.
const REFRESH_SECONDS: u32 = 2;

/// A setup that goes on: who may answer, what is asked now, and what was answered.
pub trait Setup: Send + Sync + 'static {
    /// Lets the browser in that has the code of the link: the secret by which it is known from then on. The code is good once.
    fn enter(&self, code: &str, from: Option<IpAddr>) -> Option<String>;

    /// Whether that is the browser that was let in.
    fn knows(&self, secret: &str) -> bool;

    /// What is to be shown now.
    fn view(&self) -> impl Future<Output = View> + Send;

    /// Takes an answer. What is wrong with it is in the next view.
    fn answer(&self, answer: Answer) -> impl Future<Output = ()> + Send;
}

/// What somebody answers, as the page's forms send it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub enum Answer {
    /// The network card that leads to the PCs.
    Card {
        /// Its name.
        card: String,
    },
    /// What PCs are told.
    Network(NetworkFields),
    /// The first administrator.
    Account {
        /// Name of the account.
        name: String,
        /// Its password.
        password: String,
        /// Once more.
        again: String,
    },
    /// The first image.
    Image {
        /// A file on the server; empty: an image comes later.
        file: String,
        /// Name of the image.
        name: String,
    },
    /// All of it is to be done.
    Begin,
    /// The step before this one.
    Back,
    /// What was written is to be put back.
    Undo,
    /// Somebody has seen the end.
    Finish,
}

/// What PCs are told, as it is typed.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
pub struct NetworkFields {
    /// Addresses for PCs, `FIRST-LAST`.
    pub pool: String,
    /// Their default route; empty: none.
    pub router: String,
    /// Their name servers, with blanks between them; empty: none.
    pub dns: String,
    /// Who gives the addresses if another DHCP server answers: `proxy`, the other one; `dhcp`, Bootlace, and the other one leaves
    /// these PCs alone.
    pub addresses: Option<String>,
    /// Present if the pages are for the network.
    pub open_pages: Option<String>,
}

/// What is shown.
#[derive(Clone, Debug)]
pub struct View {
    /// Names of the steps, and which of them this is.
    pub steps: Vec<&'static str>,
    /// Index of this step.
    pub here: usize,
    /// What is wrong with the last answer; empty: nothing.
    pub error: String,
    /// What is asked or told.
    pub shown: Shown,
}

impl View {
    fn has_back(&self) -> bool {
        self.here > 0 && !matches!(self.shown, Shown::Working { .. } | Shown::Ended { .. })
    }
}

/// What is asked or told in a step.
#[derive(Clone, Debug)]
pub enum Shown {
    /// Which card.
    Card {
        /// All there are: name, what is known of it, and whether it is proposed.
        cards: Vec<(String, String, bool)>,
        /// For how long is listened.
        seconds: u64,
    },
    /// What PCs are told.
    Network {
        /// Which card, and the server's address there.
        card: String,
        /// What was heard there.
        heard: Vec<String>,
        /// The other DHCP server.
        other: Option<String>,
        /// What is proposed, or was typed.
        fields: NetworkFields,
    },
    /// The account.
    Account {
        /// Its name.
        name: String,
    },
    /// The image.
    Image {
        /// The file.
        file: String,
        /// Its name.
        name: String,
    },
    /// What will be done.
    Review {
        /// In sentences.
        does: Vec<String>,
        /// The configuration, and where it will be; empty: it stays as it is.
        text: String,
        /// Its path.
        path: String,
        /// Whether nothing was done so far.
        is_untouched: bool,
    },
    /// Something is being done.
    Working {
        /// What was done.
        told: Vec<String>,
        /// What is being done.
        now: String,
        /// How much of it, if that is known.
        percent: Option<u64>,
    },
    /// That is all.
    Ended {
        /// What was done, or is to be done by hand.
        told: Vec<String>,
        /// Where the pages are.
        pages: Pages,
        /// Whether the servers run.
        is_running: bool,
        /// Whether there is something to be put back.
        has_undo: bool,
    },
}

/// Where the pages will be.
#[derive(Clone, Debug)]
pub struct Pages {
    /// `http` or `https`.
    pub scheme: &'static str,
    /// The address on which they listen; `None`: on all.
    pub address: Option<IpAddr>,
    /// The port.
    pub port: u16,
}

impl Pages {
    /// As a browser reaches them that has called this page by `host`; `None`: it can't, as they are for the server alone.
    fn url(&self, host: &str, browser: Option<IpAddr>) -> Option<String> {
        let is_there = browser.is_some_and(|it| it.to_canonical().is_loopback());
        let host = match self.address {
            Some(address) if address.to_canonical().is_loopback() && !is_there => return None,
            Some(IpAddr::V6(address)) => format!("[{address}]"),
            Some(address) => address.to_string(),
            None => without_port(host).to_owned(),
        };
        Some(format!("{}://{host}:{}/", self.scheme, self.port))
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

/// The pages of this setup. Each request has a [`Browser`] in its extensions.
///
/// `names` are those by which browsers may call it beside addresses, `localhost` and the host's own name.
pub fn router<S: Setup>(setup: Arc<S>, names: &[String]) -> Router {
    let router = Router::new()
        .route("/setup", get(show::<S>).post(answer::<S>))
        .route("/assets/app.css", get(style))
        .fallback(async || (StatusCode::SEE_OTHER, [(LOCATION, "/setup")]))
        .layer(CsrfLayer::new())
        .layer(from_fn_with_state(Arc::from(names), guard::guard));
    problem::limited(router, BODY_BYTES_MAX).layer(CatchPanicLayer::new()).with_state(setup)
}

#[derive(Template)]
#[template(path = "setup.html")]
struct SetupPage<'a> {
    view: &'a View,
    /// Where the pages are, if this browser reaches them.
    url: Option<String>,
    /// Whether this is the last page.
    is_over: bool,
    refresh_seconds: u32,
    version: &'static str,
}

/// For who was not let in.
#[derive(Template)]
#[template(path = "setup_door.html")]
struct DoorPage {
    /// Of the link that was followed; empty: of none.
    code: String,
    error: &'static str,
    version: &'static str,
}

impl DoorPage {
    fn shown(code: String, error: &'static str) -> Response {
        let status = if code.is_empty() { StatusCode::FORBIDDEN } else { StatusCode::OK };
        render(status, &Self { code, error, version: env!("CARGO_PKG_VERSION") })
    }
}

#[derive(Default, serde::Deserialize)]
struct Options {
    #[serde(default)]
    code: String,
}

/// A form: an answer, or the code of a link.
#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Sent {
    Code { code: String },
    Answer(Answer),
}

const fn cookie_name(browser: Browser) -> &'static str {
    if browser.is_encrypted { "__Host-setup" } else { "setup" }
}

fn is_let_in<S: Setup>(setup: &S, browser: Browser, headers: &HeaderMap) -> bool {
    cookie(headers, cookie_name(browser)).is_some_and(|secret| setup.knows(secret))
}

async fn show<S: Setup>(
    State(setup): State<Arc<S>>,
    Extension(browser): Extension<Browser>,
    Query(options): Query<Options>,
    headers: HeaderMap,
) -> Response {
    if !is_let_in(&*setup, browser, &headers) {
        return DoorPage::shown(options.code, "");
    }
    page(&setup.view().await, browser, &headers, false)
}

/// `is_over`: nothing is served any more after this.
fn page(view: &View, browser: Browser, headers: &HeaderMap, is_over: bool) -> Response {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost");
    let url = match &view.shown {
        Shown::Ended { pages, .. } => pages.url(host, Some(browser.address)),
        _ => None,
    };
    let is_working = matches!(view.shown, Shown::Working { .. });
    let page = SetupPage {
        url,
        refresh_seconds: if is_working { REFRESH_SECONDS } else { 0 },
        is_over,
        view,
        version: env!("CARGO_PKG_VERSION"),
    };
    render(StatusCode::OK, &page)
}

async fn answer<S: Setup>(
    State(setup): State<Arc<S>>,
    Extension(browser): Extension<Browser>,
    headers: HeaderMap,
    Form(sent): Form<Sent>,
) -> Response {
    let mut response = (StatusCode::SEE_OTHER, [(LOCATION, "/setup")]).into_response();
    match sent {
        Sent::Code { code } => {
            let Some(secret) = setup.enter(&code, Some(browser.address)) else {
                let error = "This link has been used, or is not of this setup. Stop the setup in its terminal (Ctrl-C), and begin it \
                             again: it prints another link. What was answered is asked once more; nothing was changed.";
                return DoorPage::shown(String::new(), error);
            };
            let secure = if browser.is_encrypted { "; Secure" } else { "" };
            let text = format!(
                "{}={secret}; Path=/; HttpOnly; SameSite=Strict{secure}",
                cookie_name(browser)
            );
            if let Ok(value) = HeaderValue::from_str(&text) {
                response.headers_mut().insert(SET_COOKIE, value);
            }
        }
        Sent::Answer(_) if !is_let_in(&*setup, browser, &headers) => {
            return DoorPage::shown(String::new(), "");
        }
        // Who is sent on would find nobody there.
        Sent::Answer(Answer::Finish) => {
            let view = setup.view().await;
            setup.answer(Answer::Finish).await;
            if matches!(view.shown, Shown::Ended { .. }) {
                return page(&view, browser, &headers, true);
            }
        }
        Sent::Answer(answer) => setup.answer(answer).await,
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn forms_are_answers() {
        let read = |text: &str| {
            let uri = format!("/setup?{text}").parse().unwrap();
            Query::<Sent>::try_from_uri(&uri).ok().map(|query| query.0)
        };
        let answer = |text: &str| match read(text) {
            Some(Sent::Answer(answer)) => Some(answer),
            _ => None,
        };
        let fields = NetworkFields {
            pool: "10.0.5.2-10.0.5.9".to_owned(),
            open_pages: Some("yes".to_owned()),
            ..NetworkFields::default()
        };
        let text = "step=network&pool=10.0.5.2-10.0.5.9&router=&dns=&open_pages=yes";
        assert_eq!(answer(text), Some(Answer::Network(fields)));
        assert_eq!(answer("step=card&card=br0"), Some(Answer::Card { card: "br0".to_owned() }));
        assert_eq!(answer("step=begin"), Some(Answer::Begin));
        assert!(answer("step=all").is_none() && answer("step=card").is_none());
        assert!(matches!(read("code=x"), Some(Sent::Code { .. })));
    }

    #[test]
    fn pages_are_where_this_browser_reaches_them() {
        let here = Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let there = Some(IpAddr::V4(Ipv4Addr::new(10, 0, 5, 7)));
        let on = |address| Pages { scheme: "https", address, port: 8443 };
        assert_eq!(on(None).url("boot1:8444", there).unwrap(), "https://boot1:8443/");
        assert_eq!(
            on(None).url("[2001:db8::1]:8444", there).unwrap(),
            "https://[2001:db8::1]:8443/"
        );
        assert_eq!(on(there).url("boot1", there).unwrap(), "https://10.0.5.7:8443/");
        assert_eq!(on(here).url("localhost:8081", here).unwrap(), "https://127.0.0.1:8443/");
        assert_eq!(on(here).url("boot1:8444", there), None);
    }
}
