//! Accounts, sessions, tokens, and the audit log.

use super::{Answer, Body};
use crate::front::Front;
use crate::problem::Problem;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query};
use axum::http::StatusCode;
use axum::routing::{delete, get, patch, post};
use axum::{Json, Router};
use model::{Hours, Reach, Right, Role, Rooms, UserName, present};
use service::{AccountKeeper, Admin, AuditPage, NewToken, Session, Token, User, Viewer};

type NamePath = Result<Path<UserName>, PathRejection>;
type NumberPath = Result<Path<u64>, PathRejection>;

/// Entries of the audit log in an answer, if nobody says how many.
const AUDIT_ENTRIES: u32 = 100;

pub(super) fn router() -> Router<Front> {
    Router::new()
        .route("/me", get(me))
        .route("/users", get(users).post(add_user))
        .route("/users/{name}", patch(change_user).delete(remove_user))
        .route("/sessions", get(sessions))
        .route("/sessions/{id}", delete(end_session))
        .route("/tokens", get(tokens).post(add_token))
        .route("/tokens/{id}", delete(remove_token))
        .route("/login-links", post(login_link))
        .route("/audit", get(audit))
}

/// Who asks.
#[derive(serde::Serialize)]
struct Me {
    /// Name of the account; `null`: root of the server.
    user: Option<UserName>,
    right: Right,
    /// With which machines he may work, if he may work with any, and when.
    #[serde(flatten)]
    reach: Reach,
}

async fn me(viewer: Viewer) -> Json<Me> {
    let actor = viewer.actor();
    Json(Me { user: actor.user().cloned(), right: actor.right(), reach: actor.reach().clone() })
}

async fn users(admin: Admin) -> Json<Vec<User>> {
    Json(admin.users())
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct NewUser {
    name: UserName,
    role: Role,
    password: String,
    /// Of a teacher: `"all"`, or a list of rooms; without it all.
    rooms: Option<Rooms>,
    /// Of a teacher; without them at any time.
    hours: Option<Hours>,
}

async fn add_user(admin: AccountKeeper, body: Body<NewUser>) -> Answer<(StatusCode, Json<User>)> {
    let Json(new) = body?;
    let reach = Reach { rooms: new.rooms.unwrap_or(Rooms::All), hours: new.hours };
    let user = admin.add_user_within(new.name, new.role, reach, new.password).await?;
    Ok((StatusCode::CREATED, Json(user)))
}

#[derive(Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct UserChange {
    role: Option<Role>,
    password: Option<String>,
    /// `"all"`, or a list of rooms.
    rooms: Option<Rooms>,
    /// `null`: at any time.
    #[serde(deserialize_with = "present")]
    hours: Option<Option<Hours>>,
}

/// Changes what the body names. Who becomes a teacher has his limits before.
async fn change_user(
    admin: AccountKeeper,
    name: NamePath,
    body: Body<UserChange>,
) -> Answer<StatusCode> {
    let (Path(name), Json(change)) = (name?, body?);
    if let Some(password) = change.password {
        admin.set_password(name.clone(), password).await?;
    }
    if change.rooms.is_some() || change.hours.is_some() {
        admin.set_reach(name.clone(), change.rooms, change.hours).await?;
    }
    if let Some(role) = change.role {
        admin.set_role(name, role).await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

async fn remove_user(admin: AccountKeeper, name: NamePath) -> Answer<StatusCode> {
    let Path(name) = name?;
    admin.remove_user(name).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn sessions(admin: Admin) -> Json<Vec<Session>> {
    Json(admin.sessions())
}

async fn end_session(admin: Admin, id: NumberPath) -> Answer<StatusCode> {
    let Path(id) = id?;
    admin.end_session(id).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn tokens(admin: Admin) -> Json<Vec<Token>> {
    Json(admin.tokens())
}

/// A hundred years.
const TOKEN_DAYS_MAX: u32 = 36_500;

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct WantedToken {
    label: String,
    scope: Right,
    /// The rooms with whose machines it works, `"all"` or a list; without it with all that its owner may.
    rooms: Option<Rooms>,
    /// For how many days it is good; without it for ever.
    days: Option<u32>,
}

/// Makes a token. Its secret is in this answer, and nowhere else.
async fn add_token(
    admin: AccountKeeper,
    body: Body<WantedToken>,
) -> Answer<(StatusCode, Json<NewToken>)> {
    let Json(wanted) = body?;
    if wanted.days.is_some_and(|days| !(1..=TOKEN_DAYS_MAX).contains(&days)) {
        let detail =
            format!("a token is good for 1 to {TOKEN_DAYS_MAX} days, or without days for ever");
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail));
    }
    let expires_unix = wanted.days.map(|days| admin.now().unix() + u64::from(days) * 86_400);
    let rooms = wanted.rooms.unwrap_or(Rooms::All);
    let token = admin.add_token_for(wanted.label, wanted.scope, rooms, expires_unix).await?;
    Ok((StatusCode::CREATED, Json(token)))
}

async fn remove_token(admin: Admin, id: NumberPath) -> Answer<StatusCode> {
    let Path(id) = id?;
    admin.remove_token(id).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(serde::Serialize)]
struct LoginLink {
    /// What follows the address of the pages.
    path: String,
}

/// Makes a link that logs a browser in once; for commands on the server only.
async fn login_link(admin: Admin) -> Answer<(StatusCode, Json<LoginLink>)> {
    let code = admin.new_login_code().await?;
    Ok((StatusCode::CREATED, Json(LoginLink { path: format!("/login?code={code}") })))
}

#[derive(serde::Deserialize)]
struct AuditQuery {
    before: Option<u64>,
    subject: Option<String>,
    n: Option<u32>,
}

async fn audit(
    admin: Admin,
    query: Result<Query<AuditQuery>, QueryRejection>,
) -> Answer<Json<AuditPage>> {
    let Query(query) = query?;
    let n_entries = query.n.unwrap_or(AUDIT_ENTRIES);
    Ok(Json(admin.audit(query.before, query.subject, n_entries).await?))
}
