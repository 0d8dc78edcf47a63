//! All accounts.

use super::{Choice, Done, Failure, Frame, Page, When, render, see_other};
use crate::text;
use askama::Template;
use axum::Form;
use axum::extract::{Path, Query};
use axum::http::StatusCode;
use model::{InvalidName, Role, UserName};
use service::{AccountKeeper, Admin};

#[derive(serde::Deserialize)]
pub(crate) struct Options {
    #[serde(default)]
    done: String,
}

struct ShownUser {
    name: String,
    roles: Vec<Choice>,
    password_set: When,
    sessions: String,
    tokens: String,
}

#[derive(Template)]
#[template(path = "users.html")]
struct UsersPage {
    frame: Frame,
    users: Vec<ShownUser>,
    roles: Vec<Choice>,
    done: Option<&'static str>,
    /// What somebody typed for a new account, and what is wrong with it.
    typed_name: String,
    error: String,
}

pub(crate) async fn show(admin: Admin, Query(options): Query<Options>) -> Page {
    let done = Done::sentence(&options.done);
    Ok(page(&admin, StatusCode::OK, done, (String::new(), String::new())))
}

fn roles(chosen: &str) -> Vec<Choice> {
    let label = |role: &Role| format!("{role}: {}", role.title());
    Role::ALL.iter().map(|role| Choice::new(role.word(), label(role), chosen)).collect()
}

fn page(
    admin: &Admin,
    status: StatusCode,
    done: Option<&'static str>,
    (typed_name, error): (String, String),
) -> axum::response::Response {
    let (now, sessions, tokens) = (admin.now(), admin.sessions(), admin.tokens());
    let users = admin.users().into_iter().map(|user| {
        let is_his = |owner: &Option<UserName>| owner.as_ref() == Some(&user.name);
        let n_sessions = sessions.iter().filter(|session| is_his(&session.user)).count();
        let n_tokens = tokens.iter().filter(|token| is_his(&token.user)).count();
        ShownUser {
            roles: roles(user.role.word()),
            password_set: When::seconds(user.password_unix, now),
            sessions: text::count(n_sessions as u64, "session", "sessions"),
            tokens: text::count(n_tokens as u64, "token", "tokens"),
            name: user.name.to_string(),
        }
    });
    let page = UsersPage {
        frame: Frame::new(admin, "users", "Accounts"),
        users: users.collect(),
        roles: roles(Role::Viewer.word()),
        done,
        typed_name,
        error,
    };
    render(status, &page)
}

#[derive(serde::Deserialize)]
pub(crate) struct NewUser {
    #[serde(default)]
    name: String,
    #[serde(default)]
    role: String,
    #[serde(default)]
    password: String,
}

pub(crate) async fn add(admin: AccountKeeper, Form(form): Form<NewUser>) -> Page {
    let added = async {
        let name: UserName =
            form.name.trim().parse().map_err(|error: InvalidName| error.to_string())?;
        let role = form.role.parse::<Role>().map_err(|error| error.to_string())?;
        match admin.add_user(name, role, form.password).await {
            Ok(_) => Ok(Ok(see_other("/users", Done::UserAdded))),
            Err(error) if error.is_wrong_input() => Err(error.chain()),
            Err(error) => Ok(Err(Failure::new(&admin, &error))),
        }
    };
    added.await.unwrap_or_else(|error: String| {
        Ok(page(&admin, StatusCode::UNPROCESSABLE_ENTITY, None, (form.name.clone(), error)))
    })
}

#[derive(serde::Deserialize)]
pub(crate) struct Change {
    /// `role`, `password` or `remove`.
    #[serde(default)]
    what: String,
    #[serde(default)]
    role: String,
    #[serde(default)]
    password: String,
}

pub(crate) async fn change(
    admin: AccountKeeper,
    Path(name): Path<String>,
    Form(form): Form<Change>,
) -> Page {
    let wrong = |error: String| {
        Ok(page(&admin, StatusCode::UNPROCESSABLE_ENTITY, None, (String::new(), error)))
    };
    let name: UserName = match name.parse() {
        Ok(name) => name,
        Err(error) => {
            return Err(Failure::with(
                &admin,
                StatusCode::NOT_FOUND,
                InvalidName::to_string(&error),
            ));
        }
    };
    let changed = match form.what.as_str() {
        "role" => match form.role.parse() {
            Ok(role) => admin.set_role(name, role).await.map(|_| Done::RoleChanged),
            Err(error) => return wrong(model::ParseChoiceError::to_string(&error)),
        },
        "password" => {
            admin.set_password(name, form.password).await.map(|()| Done::OtherPasswordSet)
        }
        "remove" => admin.remove_user(name).await.map(|()| Done::UserRemoved),
        _ => return wrong("that can't be done with an account".to_owned()),
    };
    match changed {
        Ok(done) => Ok(see_other("/users", done)),
        Err(error) if error.is_wrong_input() => wrong(error.chain()),
        Err(error) => Err(Failure::new(&admin, &error)),
    }
}

#[derive(Template)]
#[template(path = "user_remove.html")]
struct RemovePage {
    frame: Frame,
    name: String,
}

/// Asks before an account is removed.
pub(crate) async fn ask_remove(admin: Admin, Path(name): Path<String>) -> Page {
    let is_there = admin.users().iter().any(|user| user.name.as_str() == name);
    if !is_there {
        let detail = "There is no such account.".to_owned();
        return Err(Failure::with(&admin, StatusCode::NOT_FOUND, detail));
    }
    let frame = Frame::new(&admin, "users", format!("Remove {name}?"));
    Ok(render(StatusCode::OK, &RemovePage { frame, name }))
}
