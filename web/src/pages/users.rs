//! All accounts.

use super::{Choice, Done, Failure, Frame, Page, When, render, see_other};
use crate::text;
use askama::Template;
use axum::Form;
use axum::extract::{Path, Query};
use axum::http::StatusCode;
use model::{BadHours, Hours, InvalidName, Reach, Role, Room, RoomName, Rooms, UserName};
use service::{AccountKeeper, Admin};

#[derive(serde::Deserialize)]
pub(crate) struct Options {
    #[serde(default)]
    done: String,
}

struct ShownUser {
    name: String,
    roles: Vec<Choice>,
    /// Of a teacher.
    reach: Option<ShownReach>,
    password_set: When,
    sessions: String,
    tokens: String,
}

/// With which machines a teacher works, and when.
struct ShownReach {
    /// Tells the fields of one account from those of another one.
    id: String,
    has_all: bool,
    rooms: Vec<Choice>,
    hours: String,
}

impl ShownReach {
    fn new(id: &str, has_all: bool, chosen: &[String], hours: String, rooms: &[Room]) -> Self {
        let choice = |room: &Room| {
            let name = room.name.to_string();
            Choice { is_chosen: chosen.contains(&name), label: name.clone(), value: name }
        };
        Self { id: id.to_owned(), has_all, rooms: rooms.iter().map(choice).collect(), hours }
    }

    fn of(id: &str, reach: &Reach, rooms: &[Room]) -> Self {
        let chosen = match &reach.rooms {
            Rooms::All => Vec::new(),
            Rooms::These(these) => these.iter().map(RoomName::to_string).collect(),
        };
        let hours = reach.hours.as_ref().map_or_else(String::new, Hours::to_string);
        Self::new(id, reach.rooms == Rooms::All, &chosen, hours, rooms)
    }
}

/// The fields of a form, of which some may be there several times.
#[derive(Default, serde::Deserialize)]
#[serde(transparent)]
pub(crate) struct Fields(Vec<(String, String)>);

impl Fields {
    fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(field, _)| field == name).map_or("", |(_, value)| value)
    }

    fn all(&self, name: &str) -> Vec<String> {
        let fields = self.0.iter().filter(|(field, _)| field == name);
        fields.map(|(_, value)| value.clone()).collect()
    }

    fn role(&self) -> Result<Role, String> {
        self.get("role").parse().map_err(|error: model::ParseChoiceError| error.to_string())
    }

    /// What was chosen for a teacher. All rooms are never meant by silence.
    fn reach(&self) -> Result<Reach, String> {
        let rooms = match self.get("rooms") {
            "all" => Rooms::All,
            "these" => {
                let names = self.all("room").into_iter();
                let names =
                    names.map(|name| name.parse().map_err(|error: InvalidName| error.to_string()));
                names.collect::<Result<_, String>>()?
            }
            _ => return Err("choose whether it works with machines of all rooms".to_owned()),
        };
        let hours = match self.get("hours").trim() {
            "" => None,
            hours => Some(hours.parse().map_err(|error: BadHours| error.to_string())?),
        };
        Ok(Reach { rooms, hours })
    }
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
    typed_reach: ShownReach,
    error: String,
}

pub(crate) async fn show(admin: Admin, Query(options): Query<Options>) -> Page {
    let done = Done::sentence(&options.done);
    Ok(page(&admin, StatusCode::OK, done, &Fields::default(), String::new()))
}

fn roles(chosen: &str) -> Vec<Choice> {
    let label = |role: &Role| format!("{role}: {}", role.title());
    Role::ALL.iter().map(|role| Choice::new(role.word(), label(role), chosen)).collect()
}

fn page(
    admin: &Admin,
    status: StatusCode,
    done: Option<&'static str>,
    typed: &Fields,
    error: String,
) -> axum::response::Response {
    let site = admin.site();
    let (now, sessions, tokens) = (admin.now(), admin.sessions(), admin.tokens());
    let users = admin.users().into_iter().map(|user| {
        let is_his = |owner: &Option<UserName>| owner.as_ref() == Some(&user.name);
        let n_sessions = sessions.iter().filter(|session| is_his(&session.user)).count();
        let n_tokens = tokens.iter().filter(|token| is_his(&token.user)).count();
        ShownUser {
            roles: roles(user.role.word()),
            reach: (user.role == Role::Teacher)
                .then(|| ShownReach::of(user.name.as_str(), &user.reach, &site.rooms)),
            password_set: When::seconds(user.password_unix, now),
            sessions: text::count(n_sessions as u64, "session", "sessions"),
            tokens: text::count(n_tokens as u64, "token", "tokens"),
            name: user.name.to_string(),
        }
    });
    let page = UsersPage {
        frame: Frame::new(admin, "users", "Accounts"),
        users: users.collect(),
        roles: roles(match typed.get("role") {
            "" => Role::Viewer.word(),
            role => role,
        }),
        done,
        typed_name: typed.get("name").to_owned(),
        typed_reach: ShownReach::new(
            "new",
            typed.get("rooms") != "these",
            &typed.all("room"),
            typed.get("hours").to_owned(),
            &site.rooms,
        ),
        error,
    };
    render(status, &page)
}

pub(crate) async fn add(admin: AccountKeeper, Form(form): Form<Fields>) -> Page {
    let added = async {
        let name: UserName =
            form.get("name").trim().parse().map_err(|error: InvalidName| error.to_string())?;
        let role = form.role()?;
        let reach = match role {
            Role::Teacher => form.reach()?,
            Role::Viewer | Role::Admin => Reach::EVERYWHERE,
        };
        match admin.add_user_within(name, role, reach, form.get("password").to_owned()).await {
            Ok(_) => Ok(Ok(see_other("/users", Done::UserAdded))),
            Err(error) if error.is_wrong_input() => Err(error.chain()),
            Err(error) => Ok(Err(Failure::new(&admin, &error))),
        }
    };
    added.await.unwrap_or_else(|error: String| {
        Ok(page(&admin, StatusCode::UNPROCESSABLE_ENTITY, None, &form, error))
    })
}

/// The field `what` says what is changed: `role`, `reach`, `password` or `remove`.
pub(crate) async fn change(
    admin: AccountKeeper,
    Path(name): Path<String>,
    Form(form): Form<Fields>,
) -> Page {
    let wrong = |error: String| {
        Ok(page(&admin, StatusCode::UNPROCESSABLE_ENTITY, None, &Fields::default(), error))
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
    let changed = match form.get("what") {
        "role" => match form.role() {
            Ok(role) => admin.set_role(name, role).await.map(|_| Done::RoleChanged),
            Err(error) => return wrong(error),
        },
        "reach" => match form.reach() {
            Ok(Reach { rooms, hours }) => {
                admin.set_reach(name, Some(rooms), Some(hours)).await.map(|_| Done::ReachChanged)
            }
            Err(error) => return wrong(error),
        },
        "password" => {
            let password = form.get("password").to_owned();
            admin.set_password(name, password).await.map(|()| Done::OtherPasswordSet)
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
