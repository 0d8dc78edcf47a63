//! Who is let in, who is not, and what is noted of it.

use super::time::Hands;
use super::*;
use crate::{AccountKeeper, Actor, LOGIN_CODE_STAYS, NewSession, Via};
use model::{Right, Role, UserName};
use std::net::IpAddr;
use std::time::Duration;

const PASSWORD: &str = "three blue doors";
const HERE: Option<IpAddr> = Some(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 7)));
const THERE: Option<IpAddr> = Some(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 8)));
const START_MS: u64 = 1_800_000_000_000;

struct Site {
    service: Service,
    hands: Hands,
    folder: tempfile::TempDir,
}

impl Site {
    async fn with(users: &[(&str, Role)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let hands = Hands::at(START_MS);
        let options = Options { clock: hands.clock(), ..options(folder.path()) };
        let service = Service::open(options).unwrap();
        let site = Self { service, hands, folder };
        for &(name, role) in users {
            site.root().add_user(user(name), role, PASSWORD.to_owned()).await.unwrap();
        }
        site
    }

    /// Commands of root.
    fn root(&self) -> AccountKeeper {
        self.service.account_keeper(&Actor::command(0)).unwrap()
    }

    async fn log_in(
        &self,
        name: &str,
        password: &str,
        from: Option<IpAddr>,
    ) -> Result<NewSession, Error> {
        self.service.log_in(name, password.to_owned(), from, "Mozilla/5.0").await
    }

    fn restart(&mut self) {
        let options = Options { clock: self.hands.clock(), ..options(self.folder.path()) };
        self.service = Service::open(options).unwrap();
    }

    /// What was to be stored is stored.
    async fn settle(&self) {
        lease(&self.service, MAC, ADDRESS).await;
    }

    fn is_in(&self, session: &NewSession) -> bool {
        self.service.session_of(&session.secret, HERE).is_some()
    }

    async fn audit(&self) -> Vec<String> {
        let page = self.root().audit(None, None, 100).await.unwrap();
        let line = |entry: &crate::AuditEntry| {
            format!("{} {} {} {}", entry.who, entry.via, entry.action, entry.subject)
        };
        page.entries.iter().rev().map(line).collect()
    }
}

fn user(name: &str) -> UserName {
    name.parse().unwrap()
}

#[tokio::test]
async fn who_logs_in_may_do_what_his_role_says_and_no_more() {
    let all = [("anna", Role::Admin), ("tom", Role::Teacher), ("vera", Role::Viewer)];
    let site = Site::with(&all).await;
    for (name, role) in all {
        let session = site.log_in(name, PASSWORD, HERE).await.unwrap();
        let actor = site.service.session_of(&session.secret, HERE).unwrap();
        assert_eq!((actor.name(), actor.right()), (name, role.right()));
        assert!(site.service.viewer(&actor).is_ok() && site.service.account_owner(&actor).is_ok());
        assert_eq!(site.service.operator(&actor).is_ok(), role >= Role::Teacher);
        assert_eq!(site.service.admin(&actor).is_ok(), role == Role::Admin);
    }
    // A role counts at once, for who is logged in already, too.
    let session = site.log_in("vera", PASSWORD, HERE).await.unwrap();
    site.root().set_role(user("vera"), Role::Teacher).await.unwrap();
    let actor = site.service.session_of(&session.secret, HERE).unwrap();
    assert_eq!(actor.right(), Right::Operate);
    assert!(site.service.account_owner(&Actor::command(0)).is_err(), "root has no account");
}

#[tokio::test]
async fn nothing_secret_is_in_the_database() {
    let site = Site::with(&[("anna", Role::Admin)]).await;
    let session = site.log_in("anna", PASSWORD, HERE).await.unwrap();
    let token = site.root().add_token("backup".into(), Right::Read, None).await.unwrap();
    assert!(token.secret.starts_with("bl_") && token.secret.len() > 40);
    // While it is open: when it is closed, which another thread does, what stands in one file moves to another.
    let mut stored = Vec::new();
    for file in std::fs::read_dir(site.folder.path().join("var/lib/bootlace")).unwrap() {
        stored.extend(std::fs::read(file.unwrap().path()).unwrap_or_default());
    }
    let has = |text: &str| stored.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(has("$argon2id$") && has("anna"), "the test looks at the wrong files");
    assert!(!has(PASSWORD) && !has(&session.secret) && !has(&token.secret));
}

#[tokio::test]
async fn failed_logins_wait_longer_and_longer_also_after_a_restart() {
    let mut site = Site::with(&[("anna", Role::Admin)]).await;
    for _ in 0..4 {
        let refused = site.log_in("anna", "wrong", HERE).await;
        assert!(matches!(refused, Err(Error::LoginRefused)), "{refused:?}");
    }
    // The right password does not help while one must wait, and does not tell that it is right.
    let waits = site.log_in("anna", PASSWORD, HERE).await;
    assert!(matches!(waits, Err(Error::LoginDelayed { seconds: 1 })), "{waits:?}");
    site.restart();
    let waits = site.log_in("anna", PASSWORD, HERE).await;
    assert!(matches!(waits, Err(Error::LoginDelayed { .. })), "a restart forgets it: {waits:?}");
    for expected in [2, 4, 8, 16] {
        site.hands.pass(expected * 1000);
        let _ = site.log_in("anna", "wrong", HERE).await;
        let waits = site.log_in("anna", PASSWORD, HERE).await;
        assert!(
            matches!(waits, Err(Error::LoginDelayed { seconds }) if seconds == expected),
            "{waits:?}"
        );
    }
    // Elsewhere the account waits, but never longer than a minute; another account does not.
    assert!(site.log_in("anna", PASSWORD, THERE).await.is_err());
    site.hands.pass(61_000);
    site.log_in("anna", PASSWORD, THERE).await.unwrap();
    let audit = site.audit().await;
    assert!(audit.contains(&"nobody page login.refused anna".to_owned()), "{audit:?}");
    assert!(audit.iter().filter(|line| line.contains("login.refused")).count() <= 2, "{audit:?}");
}

#[tokio::test]
async fn many_attempts_at_once_are_no_more_than_one_after_the_other() {
    let site = Site::with(&[("anna", Role::Admin)]).await;
    let tries = (0..16).map(|_| {
        let service = site.service.clone();
        tokio::spawn(async move { service.log_in("anna", "wrong".into(), HERE, "").await })
    });
    let mut n_looked_at = 0;
    for one in tries.collect::<Vec<_>>() {
        n_looked_at += u32::from(matches!(one.await.unwrap(), Err(Error::LoginRefused)));
    }
    assert_eq!(n_looked_at, 4);
}

#[tokio::test]
async fn nobody_keeps_the_owner_of_an_account_out_where_he_was_logged_in() {
    let site = Site::with(&[("anna", Role::Admin)]).await;
    site.log_in("anna", PASSWORD, HERE).await.unwrap();
    for n in 0..40 {
        let _ = site.log_in("anna", "wrong", Some(IpAddr::from([10, 0, 1, n]))).await;
    }
    assert!(matches!(site.log_in("anna", PASSWORD, THERE).await, Err(Error::LoginDelayed { .. })));
    site.log_in("anna", PASSWORD, HERE).await.unwrap();
}

#[tokio::test]
async fn a_login_is_as_if_it_had_not_been_for_others_at_its_address() {
    let site = Site::with(&[("anna", Role::Admin), ("bert", Role::Viewer)]).await;
    for _ in 0..20 {
        let _ = site.log_in("eve", "wrong", HERE).await;
        site.hands.pass(16 * 60_000);
    }
    // None of them begins the wait of the address again.
    for name in ["anna", "bert", "anna", "bert"] {
        site.log_in(name, PASSWORD, HERE).await.unwrap();
    }
    // What others fail with later does not keep out who is logged in there, and he has no more attempts for that.
    let _ = site.log_in("eve", "wrong", HERE).await;
    let waits = site.log_in("eve", "wrong", HERE).await;
    assert!(matches!(waits, Err(Error::LoginDelayed { seconds: 900 })), "{waits:?}");
    site.log_in("anna", PASSWORD, HERE).await.unwrap();
    for _ in 0..4 {
        let refused = site.log_in("anna", "wrong", HERE).await;
        assert!(matches!(refused, Err(Error::LoginRefused)), "{refused:?}");
    }
    let waits = site.log_in("anna", PASSWORD, HERE).await;
    assert!(matches!(waits, Err(Error::LoginDelayed { seconds: 1 })), "{waits:?}");
    // A day after the last failure all is forgotten, whoever has logged in meanwhile.
    site.hands.pass(13 * 3_600_000);
    site.log_in("bert", PASSWORD, HERE).await.unwrap();
    site.hands.pass(12 * 3_600_000);
    for _ in 0..4 {
        let refused = site.log_in("eve", "wrong", HERE).await;
        assert!(matches!(refused, Err(Error::LoginRefused)), "{refused:?}");
    }
}

#[tokio::test]
async fn what_has_ended_stays_so_if_the_clock_is_set_back() {
    let site = Site::with(&[("anna", Role::Admin)]).await;
    let session = site.log_in("anna", PASSWORD, HERE).await.unwrap();
    let expires = Some(START_MS / 1000 + 86_400);
    let token = site.root().add_token("backup".to_owned(), Right::Read, expires).await.unwrap();
    site.hands.pass(25 * 3_600_000);
    let is_good = || site.service.token_of(&token.secret, HERE).is_some();
    assert!(!site.is_in(&session) && !is_good());
    site.settle().await;
    site.hands.set(START_MS);
    assert!(!site.is_in(&session) && !is_good());
}

#[tokio::test]
async fn sessions_end_by_lack_of_use_by_age_and_at_once_if_somebody_ends_them() {
    let site = Site::with(&[("anna", Role::Admin), ("vera", Role::Viewer)]).await;
    let hour = Duration::from_secs(3600).as_millis() as u64;
    let session = site.log_in("anna", PASSWORD, HERE).await.unwrap();
    // Used each eleven hours it goes on for a week.
    for _ in 0..15 {
        site.hands.pass(11 * hour);
        assert!(site.is_in(&session));
        site.settle().await;
    }
    site.hands.pass(11 * hour);
    assert!(!site.is_in(&session), "a week is over");
    let session = site.log_in("anna", PASSWORD, HERE).await.unwrap();
    site.hands.pass(12 * hour + 1000);
    assert!(!site.is_in(&session), "it was not used for half a day");

    let session = site.log_in("anna", PASSWORD, HERE).await.unwrap();
    let other = site.log_in("anna", PASSWORD, THERE).await.unwrap();
    let veras = site.log_in("vera", PASSWORD, HERE).await.unwrap();
    let anna = site.service.account_owner(&session.actor).unwrap();
    assert_eq!(anna.sessions().len(), 2, "{:?}", anna.sessions());
    let Via::Session(id) = veras.actor.via() else { panic!("{veras:?}") };
    assert!(matches!(anna.end_session(id).await, Err(Error::NoSession(_))), "it is vera's");
    let Via::Session(id) = other.actor.via() else { panic!("{other:?}") };
    anna.end_session(id).await.unwrap();
    assert!(!site.is_in(&other) && site.is_in(&session));
    site.service.log_out(&session.actor).await.unwrap();
    assert!(!site.is_in(&session));
    site.root().remove_user(user("vera")).await.unwrap();
    assert!(!site.is_in(&veras));
}

#[tokio::test]
async fn a_new_password_ends_the_other_sessions_and_needs_the_former_one() {
    let site = Site::with(&[("anna", Role::Admin)]).await;
    let session = site.log_in("anna", PASSWORD, HERE).await.unwrap();
    let other = site.log_in("anna", PASSWORD, THERE).await.unwrap();
    let anna = site.service.account_owner(&session.actor).unwrap();
    let new = "four green hats";
    let refused = anna.change_password("wrong".into(), new.into()).await;
    assert!(matches!(refused, Err(Error::LoginRefused)), "{refused:?}");
    let weak = anna.change_password(PASSWORD.into(), "short".into()).await;
    assert!(matches!(weak, Err(Error::BadPassword(_))), "{weak:?}");
    assert!(site.is_in(&other));
    anna.change_password(PASSWORD.into(), new.into()).await.unwrap();
    assert!(site.is_in(&session) && !site.is_in(&other));
    assert!(site.log_in("anna", PASSWORD, HERE).await.is_err());
    site.log_in("anna", new, HERE).await.unwrap();
    site.root().set_password(user("anna"), PASSWORD.into()).await.unwrap();
    assert!(!site.is_in(&session), "root has set another one");
}

#[tokio::test]
async fn a_token_does_no_more_than_its_scope_and_its_owner() {
    let site = Site::with(&[("anna", Role::Admin), ("tom", Role::Teacher)]).await;
    let tom = site.log_in("tom", PASSWORD, HERE).await.unwrap();
    let tom = site.service.account_owner(&tom.actor).unwrap();
    let more = tom.add_token("x".into(), Right::Admin, None).await;
    assert!(matches!(more, Err(Error::NotAllowed { needed: Right::Admin })), "{more:?}");
    assert!(matches!(tom.add_token(" ".into(), Right::Read, None).await, Err(Error::BadLabel)));
    let expires = Some(START_MS / 1000 + 3600);
    let token = tom.add_token("night".into(), Right::Operate, expires).await.unwrap();
    let right = || site.service.token_of(&token.secret, None).map(|actor| actor.right());
    assert_eq!(right(), Some(Right::Operate));
    let actor = site.service.token_of(&token.secret, None).unwrap();
    assert!(site.service.account_owner(&actor).is_err(), "a token changes no account");
    site.root().set_role(user("tom"), Role::Viewer).await.unwrap();
    assert_eq!(right(), Some(Right::Read), "its owner may do less now");
    site.hands.pass(3_600_000);
    assert_eq!(right(), None, "it has expired");
    let token = tom.add_token("day".into(), Right::Read, None).await.unwrap();
    assert!(site.service.token_of(&token.secret, None).is_some());
    site.settle().await;
    assert!(tom.tokens().iter().any(|known| known.label == "day" && known.last_unix.is_some()));
    tom.remove_token(token.token.id).await.unwrap();
    assert!(site.service.token_of(&token.secret, None).is_none());
    assert!(site.service.token_of("bl_", None).is_none());
}

#[tokio::test]
async fn a_link_logs_in_once_and_only_commands_get_one() {
    let site = Site::with(&[("anna", Role::Admin)]).await;
    let code = site.root().new_login_code().await.unwrap();
    let session = site.service.log_in_by_code(&code, HERE, "").await.unwrap();
    assert_eq!((session.actor.name(), session.actor.right()), ("root", Right::Admin));
    assert!(site.is_in(&session));
    let again = site.service.log_in_by_code(&code, HERE, "").await;
    assert!(matches!(again, Err(Error::LoginCodeVoid)), "{again:?}");
    let late = site.root().new_login_code().await.unwrap();
    site.hands.pass(LOGIN_CODE_STAYS.as_millis() as u64);
    assert!(site.service.log_in_by_code(&late, HERE, "").await.is_err());
    let anna = site.log_in("anna", PASSWORD, HERE).await.unwrap();
    let refused = site.service.admin(&anna.actor).unwrap().new_login_code().await;
    assert!(matches!(refused, Err(Error::OnlyOnServer)), "{refused:?}");
}

#[tokio::test]
async fn somebody_can_always_change_everything() {
    let site = Site::with(&[("anna", Role::Admin)]).await;
    assert!(site.service.has_admin());
    let root = site.root();
    let lowered = root.set_role(user("anna"), Role::Viewer).await;
    assert!(matches!(lowered, Err(Error::LastAdmin(_))), "{lowered:?}");
    assert!(matches!(root.remove_user(user("anna")).await, Err(Error::LastAdmin(_))));
    root.add_user(user("bert"), Role::Admin, PASSWORD.into()).await.unwrap();
    let taken = root.add_user(user("bert"), Role::Viewer, PASSWORD.into()).await;
    assert!(matches!(taken, Err(Error::UserTaken(_))), "{taken:?}");
    root.remove_user(user("anna")).await.unwrap();
    assert_eq!(root.users().len(), 1);
}

#[tokio::test]
async fn the_audit_log_says_who_did_what_and_is_only_added_to() {
    let site = Site::with(&[("anna", Role::Admin), ("vera", Role::Viewer)]).await;
    let session = site.log_in("anna", PASSWORD, HERE).await.unwrap();
    let anna = site.service.admin(&session.actor).unwrap();
    let anna = site.service.account_keeper(anna.actor()).unwrap();
    anna.set_role(user("vera"), Role::Teacher).await.unwrap();
    anna.set_role(user("gone"), Role::Teacher).await.unwrap_err();
    let page = anna.audit(None, Some("vera".into()), 10).await.unwrap();
    let last = &page.entries[0];
    assert_eq!((last.who.as_str(), last.via.as_str()), ("anna", "page"));
    assert_eq!((last.action.as_str(), last.address.as_deref()), ("user.role", Some("10.0.0.7")));
    let change = &last.changes[0];
    assert_eq!((change.old.as_deref(), change.new.as_deref()), (Some("viewer"), Some("teacher")));
    let expected = [
        "root command user.add anna",
        "root command user.add vera",
        "anna page login anna",
        "anna page user.role vera",
    ];
    assert_eq!(site.audit().await, expected, "what was refused has changed nothing");
    let page = anna.audit(None, None, 3).await.unwrap();
    assert_eq!((page.entries.len(), page.before), (3, Some(page.entries[2].id)));
    let rest = anna.audit(page.before, None, 3).await.unwrap();
    assert_eq!((rest.entries.len(), rest.before), (1, None));
}

#[tokio::test]
async fn an_entry_has_what_was_chosen_and_only_what_was_done() {
    let site = Site::with(&[]).await;
    let (root, name) = (site.root(), "lab-07".parse::<MachineName>().unwrap());
    let change = MachineChange { mac: Some(MAC), ..Default::default() };
    root.set_machine(name.clone(), change).await.unwrap();
    // There is no storage server that could do it.
    root.decide_stall(&name, model::StallVerb::Fail).await.unwrap_err();
    root.remove_machine(name.clone()).await.unwrap();
    let entries = root.audit(None, Some(name.to_string()), 10).await.unwrap().entries;
    let actions: Vec<&str> = entries.iter().map(|entry| entry.action.as_str()).collect();
    assert_eq!(actions, ["machine.remove", "machine.add"]);
    for entry in entries {
        let fields: Vec<&str> = entry.changes.iter().map(|change| change.field.as_str()).collect();
        assert_eq!(fields, ["mac", "menu", "root", "write_mode"]);
    }
    assert!(root.audit(None, None, 0).await.unwrap().entries.is_empty());
}

#[tokio::test]
async fn slow_logins_keep_no_machine_waiting() {
    let site = Site::with(&[("anna", Role::Admin)]).await;
    let logins = (0..60u8).map(|n| {
        let service = site.service.clone();
        let from = Some(IpAddr::from([10, 1, 0, n]));
        let name = format!("nobody-{n}");
        let login = async move { service.log_in(&name, "wrong".into(), from, "").await };
        (n, tokio::spawn(login))
    });
    let logins: Vec<_> = logins.collect();
    tokio::task::yield_now().await;
    #[expect(clippy::disallowed_methods, reason = "real machines wait for real time")]
    let began = std::time::Instant::now();
    for n in 0..50u8 {
        lease(&site.service, Mac([2, 0, 0, 0, 0, n]), Ipv4Addr::new(10, 77, 0, n)).await;
    }
    let took = began.elapsed();
    let mut sent_away = Vec::new();
    for (n, login) in logins {
        sent_away.extend(matches!(login.await.unwrap(), Err(Error::TooManyLogins)).then_some(n));
    }
    assert!(took < Duration::from_secs(5), "50 leases took {took:?} while people logged in");
    // Not all can wait; who was sent away has as many attempts left as before.
    let n = *sent_away.first().unwrap();
    for _ in 0..4 {
        let from = Some(IpAddr::from([10, 1, 0, n]));
        let refused = site.log_in(&format!("nobody-{n}"), "wrong", from).await;
        assert!(matches!(refused, Err(Error::LoginRefused)), "{refused:?}");
    }
}
