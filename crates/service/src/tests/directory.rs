//! Whom a directory knows, and what an older Bootlace makes of it.

use super::*;
use crate::{
    Actor, Directory, DirectoryAnswer, DirectoryAsked, DirectoryGroup, DirectoryOptions,
    DirectoryTrouble, NewSession, Via,
};
use model::{Right, Role, Rooms, UserName};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

const PASSWORD: &str = "three blue doors";
const HERE: Option<IpAddr> = Some(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 7)));

/// Says of everybody that he is in the groups that his password names.
#[derive(Debug, Default)]
struct Obedient {
    n_asked: AtomicU32,
}

impl Directory for Obedient {
    fn prove<'a>(&'a self, _: &'a UserName, password: &'a str) -> DirectoryAsked<'a> {
        self.n_asked.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            match password {
                "" => panic!("an empty password is sent"),
                "away" => Err(DirectoryTrouble("it is away".into())),
                "out" => Ok(DirectoryAnswer::Out("it says so".into())),
                groups => Ok(DirectoryAnswer::In(
                    groups.split(' ').filter_map(|index| index.parse().ok()).collect(),
                )),
            }
        })
    }
}

fn groups(n: usize) -> Vec<DirectoryGroup> {
    let rooms = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect();
    let all = [
        ("viewers", Role::Viewer, Rooms::All),
        ("r1", Role::Teacher, rooms(&["r1"])),
        ("r2", Role::Teacher, rooms(&["r2"])),
        ("teachers", Role::Teacher, Rooms::All),
        ("it", Role::Admin, Rooms::All),
    ];
    let group = |(name, role, rooms): (&str, Role, Rooms)| DirectoryGroup {
        name: name.to_owned(),
        role,
        rooms,
    };
    all.into_iter().take(n).map(group).collect()
}

fn open(folder: &Path, directory: &Arc<Obedient>, n_groups: usize) -> Service {
    let directory: Arc<dyn Directory> = Arc::<Obedient>::clone(directory);
    let directory = Some(DirectoryOptions { directory, groups: groups(n_groups) });
    Service::open(Options { directory, ..options(folder) }).unwrap()
}

async fn log_in(service: &Service, name: &str, password: &str) -> Result<NewSession, Error> {
    service.log_in(name, password.to_owned(), HERE, "Mozilla/5.0").await
}

fn actor(service: &Service, session: &NewSession) -> Option<Actor> {
    service.session_of(&session.secret, HERE)
}

#[tokio::test]
async fn the_best_role_wins_and_teachers_have_the_rooms_of_all_their_groups() {
    let folder = tempfile::tempdir().unwrap();
    let service = open(folder.path(), &Arc::default(), 5);
    for (groups, right, rooms) in [
        ("0", Right::Read, "all rooms"),
        ("0 1", Right::Operate, "r1"),
        ("1 2", Right::Operate, "r1, r2"),
        ("1 3 2", Right::Operate, "all rooms"),
        ("4 1", Right::Admin, "all rooms"),
    ] {
        let session = log_in(&service, "anna", groups).await.unwrap();
        let known = actor(&service, &session).unwrap();
        assert_eq!(known, session.actor, "{groups}");
        assert_eq!((known.right(), &*known.reach().rooms.to_string()), (right, rooms), "{groups}");
        assert!(matches!(known.via(), Via::Directory(_)) && !known.has_account());
        // An account of the directory is not ours to change, and has no tokens here.
        assert!(matches!(service.account_owner(&known), Err(Error::NoAccount)));
    }
    assert!(service.has_account() && !service.has_admin(), "nobody of this server can log in");
}

#[tokio::test]
async fn who_has_an_account_here_or_no_password_is_not_asked_of_the_directory() {
    let folder = tempfile::tempdir().unwrap();
    let directory = Arc::<Obedient>::default();
    let service = open(folder.path(), &directory, 5);
    let root = service.account_keeper(&Actor::command(0)).unwrap();
    let name = |name: &str| -> UserName { name.parse().unwrap() };
    root.add_user(name("otto"), Role::Viewer, PASSWORD.to_owned()).await.unwrap();
    for (who, password) in [
        ("otto", "4"),
        ("root", "4"),
        ("nobody", "4"),
        ("anna", ""),
        ("*", "4"),
        (")(uid=*", "4"),
        ("anna\0", "4"),
        ("Anna", "4"),
    ] {
        let refused = log_in(&service, who, password).await;
        assert!(
            matches!(refused, Err(Error::LoginRefused | Error::LoginDelayed { .. })),
            "{who:?}: {refused:?}"
        );
    }
    assert_eq!(directory.n_asked.load(Ordering::Relaxed), 0);
    // What the directory has begun is void while there is an account of that name.
    let there = Some(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 9)));
    let session = service.log_in("tom", "4".to_owned(), there, "").await.unwrap();
    root.add_user(name("tom"), Role::Viewer, PASSWORD.to_owned()).await.unwrap();
    assert_eq!(actor(&service, &session), None);
    assert!(root.sessions().is_empty(), "{:?}", root.sessions());
}

#[tokio::test]
async fn refused_logins_are_counted_and_those_that_nobody_looked_at_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let service = open(folder.path(), &Arc::default(), 5);
    for _ in 0..6 {
        let away = log_in(&service, "anna", "away").await;
        assert!(matches!(away, Err(Error::DirectoryAway)), "{away:?}");
    }
    for password in ["out", "9", "out", "out"] {
        let refused = log_in(&service, "anna", password).await;
        assert!(matches!(refused, Err(Error::LoginRefused)), "{password}: {refused:?}");
    }
    let delayed = log_in(&service, "anna", "4").await;
    assert!(matches!(delayed, Err(Error::LoginDelayed { .. })), "{delayed:?}");
}

#[tokio::test]
async fn a_session_lasts_as_long_as_its_group_lets_it_in_and_older_releases_see_none() {
    let folder = tempfile::tempdir().unwrap();
    let directory = Arc::<Obedient>::default();
    let service = open(folder.path(), &directory, 5);
    let anna = log_in(&service, "anna", "4").await.unwrap();
    let vera = log_in(&service, "vera", "0 4").await.unwrap();
    let root = service.account_keeper(&Actor::command(0)).unwrap();
    let ours = service.log_in_by_code(&root.new_login_code().await.unwrap(), HERE, "").await;
    let ours = ours.unwrap();
    let ids: Vec<u64> = root.sessions().iter().map(|session| session.id).collect();
    assert_eq!(ids.iter().collect::<std::collections::BTreeSet<_>>().len(), 3, "{ids:?}");
    // What an older Bootlace reads: a session without an account would be root's.
    let path = options(folder.path()).database;
    let seen: Vec<Option<String>> = rusqlite::Connection::open(&path)
        .unwrap()
        .prepare("SELECT user FROM session")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    assert_eq!(seen, [None], "only that of the link");
    drop((root, service));

    // The group of administrators is taken out of the configuration.
    let service = open(folder.path(), &directory, 4);
    assert_eq!(actor(&service, &anna), None);
    assert_eq!(actor(&service, &vera).unwrap().right(), Right::Read);
    drop(service);
    let service = Service::open(options(folder.path())).unwrap();
    assert_eq!(actor(&service, &vera), None, "there is no directory any more");
    assert!(actor(&service, &ours).is_some());
    drop(service);
    let service = open(folder.path(), &directory, 5);
    let known = actor(&service, &vera).unwrap();
    service.log_out(&known).await.unwrap();
    assert_eq!(actor(&service, &vera), None);
    let root = service.admin(&Actor::command(0)).unwrap();
    let Via::Directory(id) = actor(&service, &anna).unwrap().via() else { panic!("no session") };
    root.end_session(id).await.unwrap();
    assert_eq!(actor(&service, &anna), None);
}
