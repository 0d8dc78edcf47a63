//! One's own account: password, sessions, tokens.

use super::{Choice, Done, Failure, Frame, Page, When, render, see_other};
use askama::Template;
use axum::Form;
use axum::extract::{Path, Query};
use axum::http::StatusCode;
use model::{Reach, Right, Role, Rooms};
use service::{AccountOwner, Error, Token, User};

/// How long a token is good if nobody says otherwise.
const TOKEN_DAYS: u64 = 365;

#[derive(serde::Deserialize)]
pub(crate) struct Options {
    #[serde(default)]
    done: String,
}

struct ShownSession {
    id: u64,
    is_this: bool,
    browser: String,
    address: String,
    begun: When,
    last: When,
}

struct ShownToken {
    id: u64,
    label: String,
    scope: String,
    made: When,
    last: Option<When>,
    expires: String,
    is_void: bool,
}

#[derive(Template)]
#[template(path = "account.html")]
struct AccountPage {
    frame: Frame,
    name: String,
    role: &'static str,
    may: &'static str,
    /// With which machines it works, if not with all, and when.
    reach: Option<String>,
    password_set: When,
    password_error: String,
    token_error: String,
    /// A token that was made just now: it is shown only here and now.
    new_token: Option<String>,
    done: Option<&'static str>,
    sessions: Vec<ShownSession>,
    tokens: Vec<ShownToken>,
    scopes: Vec<Choice>,
}

/// What is said about what somebody has just done.
#[derive(Default)]
struct News {
    password_error: String,
    token_error: String,
    new_token: Option<String>,
    done: Option<&'static str>,
}

pub(crate) async fn show(owner: AccountOwner, Query(options): Query<Options>) -> Page {
    let done = Done::sentence(&options.done);
    page(&owner, StatusCode::OK, News { done, ..News::default() })
}

fn page(owner: &AccountOwner, status: StatusCode, news: News) -> Page {
    let account = owner.account().map_err(|error| Failure::new(owner, &error))?;
    let now = owner.now();
    let sessions = owner.sessions().into_iter().map(|session| ShownSession {
        id: session.id,
        is_this: session.id == owner.session(),
        browser: browser(&session.browser),
        address: session.address,
        begun: When::seconds(session.created_unix, now),
        last: When::seconds(session.last_unix, now),
    });
    let right = owner.actor().right();
    let scopes = Right::ALL.iter().filter(|&&scope| scope <= right);
    let scopes = scopes.map(|scope| {
        Choice::new(scope.word(), format!("{scope}: {}", scope.title()), Right::Read.word())
    });
    let page = AccountPage {
        frame: Frame::new(owner, "account", "Account"),
        name: account.name.to_string(),
        role: account.role.word(),
        may: account.role.right().title(),
        reach: reach(&account),
        password_set: When::seconds(account.password_unix, now),
        password_error: news.password_error,
        token_error: news.token_error,
        new_token: news.new_token,
        done: news.done,
        sessions: sessions.collect(),
        tokens: owner.tokens().into_iter().map(|token| shown(token, now)).collect(),
        scopes: scopes.collect(),
    };
    Ok(render(status, &page))
}

fn reach(account: &User) -> Option<String> {
    let Reach { rooms, hours } = &account.reach;
    if account.role != Role::Teacher || account.reach == Reach::EVERYWHERE {
        return None;
    }
    Some(match hours {
        Some(hours) => format!("It works with machines in {rooms}, at {hours}."),
        None => format!("It works with machines in {rooms}."),
    })
}

fn shown(token: Token, now: service::Now) -> ShownToken {
    ShownToken {
        id: token.id,
        is_void: token.has_expired(now.unix()),
        expires: match token.expires_unix {
            None => "never".to_owned(),
            Some(unix) => crate::text::exact(unix.saturating_mul(1000)),
        },
        scope: match &token.rooms {
            Rooms::All => token.scope.to_string(),
            rooms => format!("{} in {rooms}", token.scope),
        },
        made: When::seconds(token.created_unix, now),
        last: token.last_unix.map(|last| When::seconds(last, now)),
        label: token.label,
    }
}

/// What people call it, from what it says of itself.
fn browser(agent: &str) -> String {
    let find = |names: &[(&str, &'static str)]| {
        names.iter().find(|(part, _)| agent.contains(part)).map(|(_, name)| *name)
    };
    // Each says that it is those behind it, too.
    let browsers = [
        ("Firefox/", "Firefox"),
        ("Edg/", "Edge"),
        ("OPR/", "Opera"),
        ("Chrome/", "Chromium"),
        ("Safari/", "Safari"),
        ("curl/", "curl"),
    ];
    let systems = [
        ("Android", "Android"),
        ("iPhone", "iPhone"),
        ("iPad", "iPad"),
        ("Linux", "Linux"),
        ("Windows", "Windows"),
        ("Mac OS X", "macOS"),
    ];
    match (find(&browsers), find(&systems)) {
        (Some(browser), Some(system)) => format!("{browser} on {system}"),
        (Some(browser), None) => browser.to_owned(),
        _ if agent.is_empty() => "a browser that does not say".to_owned(),
        _ => agent.to_owned(),
    }
}

#[derive(serde::Deserialize)]
pub(crate) struct Passwords {
    #[serde(default)]
    former: String,
    #[serde(default)]
    new: String,
    #[serde(default)]
    again: String,
}

pub(crate) async fn change_password(owner: AccountOwner, Form(form): Form<Passwords>) -> Page {
    let password_error = if form.new != form.again {
        "both new passwords must be the same".to_owned()
    } else {
        match owner.change_password(form.former, form.new).await {
            Ok(()) => return Ok(see_other("/account", Done::PasswordChanged)),
            Err(Error::LoginRefused) => "the former password is wrong".to_owned(),
            Err(
                error @ (Error::BadPassword(_) | Error::LoginDelayed { .. } | Error::TooManyLogins),
            ) => error.chain(),
            Err(error) => return Err(Failure::new(&owner, &error)),
        }
    };
    let news = News { password_error, ..News::default() };
    page(&owner, StatusCode::UNPROCESSABLE_ENTITY, news)
}

pub(crate) async fn end_session(owner: AccountOwner, Path(id): Path<u64>) -> Page {
    owner.end_session(id).await.map_err(|error| Failure::new(&owner, &error))?;
    Ok(see_other("/account", Done::SessionEnded))
}

#[derive(serde::Deserialize)]
pub(crate) struct WantedToken {
    #[serde(default)]
    label: String,
    #[serde(default)]
    scope: String,
    #[serde(default)]
    days: String,
}

pub(crate) async fn add_token(owner: AccountOwner, Form(form): Form<WantedToken>) -> Page {
    let refused = |token_error: String| {
        let news = News { token_error, ..News::default() };
        page(&owner, StatusCode::UNPROCESSABLE_ENTITY, news)
    };
    let Ok(scope) = form.scope.parse::<Right>() else {
        return refused("choose what it may do".to_owned());
    };
    let days = match form.days.trim() {
        "" => Some(TOKEN_DAYS),
        "never" => None,
        days => match days.parse() {
            Ok(days @ 1..=36_500) => Some(days),
            _ => return refused("it is good for 1 to 36500 days".to_owned()),
        },
    };
    let expires_unix = days.map(|days| owner.now().unix() + days * 86_400);
    match owner.add_token(form.label, scope, expires_unix).await {
        Ok(new) => {
            let news = News { new_token: Some(new.secret), ..News::default() };
            page(&owner, StatusCode::CREATED, news)
        }
        Err(error) if error.is_wrong_input() => refused(error.chain()),
        Err(error) => Err(Failure::new(&owner, &error)),
    }
}

pub(crate) async fn remove_token(owner: AccountOwner, Path(id): Path<u64>) -> Page {
    owner.remove_token(id).await.map_err(|error| Failure::new(&owner, &error))?;
    Ok(see_other("/account", Done::TokenRemoved))
}

#[cfg(test)]
mod tests {
    use super::browser;

    #[test]
    fn browsers_are_called_as_people_call_them() {
        let firefox = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";
        assert_eq!(browser(firefox), "Firefox on Linux");
        let edge =
            "Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 Chrome/140.0 Safari/537.36 Edg/140";
        assert_eq!(browser(edge), "Edge on Windows");
        assert_eq!((browser("curl/8.0"), browser("x y")), ("curl".into(), "x y".into()));
    }
}
