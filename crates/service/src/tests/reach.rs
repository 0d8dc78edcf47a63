//! With which machines teachers and tokens work, and when.

use super::time::Hands;
use super::*;
use crate::{AccountKeeper, Actor, RoomChange};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use model::{Hours, Reach, Right, Role, Rooms, UserName};

const PASSWORD: &str = "three blue doors";
/// A Monday, at noon in Berlin.
const NOON: &str = "2026-11-30T11:00:00Z";

struct Site {
    service: Service,
    hands: Hands,
    folder: tempfile::TempDir,
}

impl Site {
    /// With two rooms, a machine in each, and one in none.
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let hands = Hands::at(unix_ms(NOON));
        let site = Self { service: open(folder.path(), &hands), hands, folder };
        for (n, room) in [(1, Some("r101")), (2, Some("r102")), (3, None)] {
            if let Some(room) = room {
                site.root().set_room(room.parse().unwrap(), RoomChange::default()).await.unwrap();
            }
            let change = MachineChange {
                mac: Some(Mac([2, 0, 0, 0, 0, n])),
                room: Some(room.map(|room| room.parse().unwrap())),
                ..MachineChange::default()
            };
            site.root().set_machine(name(&format!("pc-{n}")), change).await.unwrap();
        }
        site
    }

    fn root(&self) -> AccountKeeper {
        self.service.account_keeper(&Actor::command(0)).unwrap()
    }

    async fn add(&self, rooms: Rooms, hours: Option<&str>) -> Actor {
        let reach = Reach { rooms, hours: hours.map(|hours| hours.parse().unwrap()) };
        let root = self.root();
        root.add_user_within(tom(), Role::Teacher, reach, PASSWORD.into()).await.unwrap();
        self.tom().await
    }

    /// Tom, who is logged in anew.
    async fn tom(&self) -> Actor {
        let session = self.service.log_in("tom", PASSWORD.to_owned(), None, "").await.unwrap();
        let actor = self.service.session_of(&session.secret, None).unwrap();
        assert_eq!(actor, session.actor, "a new session is as all others");
        actor
    }

    /// The numbers of the machines that he may work with. Whether he may is asked in both ways.
    fn works_with(&self, actor: &Actor) -> Vec<u8> {
        let may = |n: &u8| {
            let name = name(&format!("pc-{n}"));
            let viewer = self.service.viewer(actor).unwrap();
            let machine = self.service.site().machine(&name).unwrap().clone();
            let is_shown = viewer.check_work_with(&machine).is_ok();
            let operator = self.service.operator(actor);
            assert_eq!(operator.is_ok_and(|it| it.work_with(&name).is_ok()), is_shown, "{n}");
            is_shown
        };
        (1..=3).filter(may).collect()
    }

    async fn bind(&self, rooms: Rooms) {
        self.root().set_reach(tom(), Some(rooms), None).await.unwrap();
    }
}

fn open(root: &Path, hands: &Hands) -> Service {
    let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
    Service::open(Options { clock: hands.clock().in_zone(zone), ..options(root) }).unwrap()
}

fn unix_ms(time: &str) -> u64 {
    time.parse::<Timestamp>().unwrap().as_millisecond() as u64
}

fn name(text: &str) -> MachineName {
    text.parse().unwrap()
}

fn tom() -> UserName {
    "tom".parse().unwrap()
}

fn rooms(names: &[&str]) -> Rooms {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

#[tokio::test]
async fn a_teacher_works_in_his_rooms_and_what_changes_counts_at_once() {
    let site = Site::new().await;
    let actor = site.add(rooms(&["r101"]), None).await;
    assert_eq!(site.works_with(&actor), [1]);
    let operator = site.service.operator(&actor).unwrap();
    let order = operator.order(&name("pc-2"), crate::PowerVerb::Reboot).await.unwrap_err();
    let expected = "this account can't restart or shut down pc-2, which is in the room r102: it works with machines in \
                    r101. An administrator can change that";
    assert_eq!(order.to_string(), expected);
    let order = operator.order(&name("pc-3"), crate::PowerVerb::Reboot).await.unwrap_err();
    assert!(order.to_string().contains("which is in no room"), "{order}");
    // It has no system that could be told, which is the next thing that is looked at.
    let order = operator.order(&name("pc-1"), crate::PowerVerb::Reboot).await.unwrap_err();
    assert!(matches!(order, Error::NoKeeper(_)), "{order}");

    // The machine goes to another room, and comes back. Nobody has to log in again.
    let to = |room: Option<&str>| MachineChange {
        room: Some(room.map(|room| room.parse().unwrap())),
        ..MachineChange::default()
    };
    site.root().set_machine(name("pc-1"), to(Some("r102"))).await.unwrap();
    assert_eq!(site.works_with(&actor), [0; 0]);
    site.root().set_machine(name("pc-3"), to(Some("r101"))).await.unwrap();
    assert_eq!(site.works_with(&actor), [3]);

    // A room keeps its teacher under another name, and the former name is nobody's.
    let change = RoomChange { name: Some("r901".parse().unwrap()), ..RoomChange::default() };
    site.root().set_room("r101".parse().unwrap(), change).await.unwrap();
    let actor = site.tom().await;
    assert_eq!(site.works_with(&actor), [3]);
    assert_eq!(site.root().users()[0].reach.rooms, rooms(&["r901"]));
    site.root().set_room("r101".parse().unwrap(), RoomChange::default()).await.unwrap();
    site.root().set_machine(name("pc-1"), to(Some("r101"))).await.unwrap();
    assert_eq!(site.works_with(&site.tom().await), [3]);

    site.bind(Rooms::All).await;
    assert_eq!(site.works_with(&site.tom().await), [1, 2, 3]);
    site.bind(rooms(&[])).await;
    let actor = site.tom().await;
    assert_eq!(site.works_with(&actor), [0; 0], "no room is none");
    let order = site.service.operator(&actor).unwrap().work_with(&name("pc-1")).unwrap_err();
    assert!(order.to_string().contains("it works with machines in no room"), "{order}");
}

#[tokio::test]
async fn who_loses_his_last_room_works_nowhere_also_if_one_of_that_name_comes() {
    let site = Site::new().await;
    site.add(rooms(&["r101"]), None).await;
    site.root()
        .set_machine(name("pc-1"), MachineChange { room: Some(None), ..Default::default() })
        .await
        .unwrap();
    site.root().remove_room("r101".parse().unwrap()).await.unwrap();
    let entry =
        site.root().audit(None, Some("r101".to_owned()), 1).await.unwrap().entries.remove(0);
    let lost = entry.changes.iter().find(|change| change.field == "teachers").unwrap();
    assert_eq!((lost.old.as_deref(), lost.new.as_deref()), (Some("tom"), None));
    assert_eq!(site.works_with(&site.tom().await), [0; 0]);
    site.root().set_room("r101".parse().unwrap(), RoomChange::default()).await.unwrap();
    let change = MachineChange { room: Some(Some("r101".parse().unwrap())), ..Default::default() };
    site.root().set_machine(name("pc-1"), change).await.unwrap();
    assert_eq!(site.works_with(&site.tom().await), [0; 0]);
    let unknown = site.root().set_reach(tom(), Some(rooms(&["r999"])), None).await.unwrap_err();
    assert!(unknown.to_string().contains("no room r999"), "{unknown}");
}

#[tokio::test]
async fn a_role_does_not_widen_what_was_said_before() {
    let site = Site::new().await;
    site.add(rooms(&["r101"]), Some("mon 8:00-9:00")).await;
    for role in [Role::Viewer, Role::Admin] {
        site.root().set_role(tom(), role).await.unwrap();
        let actor = site.tom().await;
        assert_eq!((actor.right(), actor.reach()), (role.right(), &Reach::EVERYWHERE));
        let expected: &[u8] = if role == Role::Admin { &[1, 2, 3] } else { &[] };
        assert_eq!(site.works_with(&actor), expected, "{role}");
        site.root().add_user("anna".parse().unwrap(), Role::Admin, PASSWORD.into()).await.ok();
        site.root().set_role(tom(), Role::Teacher).await.unwrap();
        let reach = site.tom().await.reach().clone();
        assert_eq!((reach.rooms, reach.hours.is_some()), (rooms(&["r101"]), true));
    }
    let vera = "vera".parse().unwrap();
    let reach = Reach { rooms: rooms(&["r101"]), hours: None };
    let refused = site.root().add_user_within(vera, Role::Viewer, reach, PASSWORD.into()).await;
    assert!(matches!(refused, Err(Error::NoTeacher { .. })), "{refused:?}");
    site.root().set_password(tom(), "four green hats".into()).await.unwrap();
    let user = site.root().users().into_iter().find(|user| user.name == tom()).unwrap();
    assert_eq!((user.role, user.reach.rooms), (Role::Teacher, rooms(&["r101"])));
}

#[tokio::test]
async fn outside_of_his_hours_he_only_looks() {
    let site = Site::new().await;
    let actor = site.add(Rooms::All, Some("mon-fri 7:00-18:00")).await;
    for (time, is_in) in [
        (NOON, true),
        ("2026-11-30T05:59:00Z", false),
        ("2026-11-30T06:00:00Z", true),
        ("2026-11-30T17:00:00Z", false),
        ("2026-11-29T11:00:00Z", false),
        // In summer the clock on the wall is an hour further.
        ("2026-07-06T05:00:00Z", true),
        ("2026-07-06T16:00:00Z", false),
    ] {
        site.hands.set(unix_ms(time));
        let expected: &[u8] = if is_in { &[1, 2, 3] } else { &[] };
        assert_eq!(site.works_with(&actor), expected, "{time}");
        assert!(site.service.viewer(&actor).is_ok());
    }
    let refused = site.service.operator(&actor).err().unwrap().to_string();
    let expected = "this account can't restart or shut down machines now, at mon 18:00: it can at mon-fri 7:00-18:00, by the \
                    server's clock. An administrator can change that";
    assert_eq!(refused, expected);
    site.root().set_reach(tom(), None, Some(None)).await.unwrap();
    assert_eq!(site.works_with(&site.tom().await), [1, 2, 3]);
}

#[tokio::test]
async fn a_token_is_bounded_by_its_account_and_by_its_rooms() {
    let site = Site::new().await;
    let actor = site.add(rooms(&["r101"]), Some("mon-fri 7:00-18:00")).await;
    let owner = site.service.account_owner(&actor).unwrap();
    let token = owner.add_token("bell".into(), Right::Operate, None).await.unwrap().secret;
    let of = |token: &str| site.service.token_of(token, None).unwrap();
    assert_eq!(site.works_with(&of(&token)), [1]);
    let refused = site.service.operator(&of(&token)).unwrap().work_with(&name("pc-2")).unwrap_err();
    assert!(refused.to_string().starts_with("this token can't"), "{refused}");
    site.bind(rooms(&["r102"])).await;
    assert_eq!(site.works_with(&of(&token)), [2], "the account has another room");
    site.hands.set(unix_ms("2026-11-29T11:00:00Z"));
    assert_eq!(site.works_with(&of(&token)), [0; 0], "it is Sunday");

    let root = site.root();
    let make = |rooms| root.add_token_for("night".into(), Right::Operate, rooms, None);
    let token = make(rooms(&["r101"])).await.unwrap();
    assert_eq!(site.works_with(&of(&token.secret)), [1]);
    assert_eq!(root.tokens().last().unwrap().rooms, rooms(&["r101"]));
    assert_eq!(root.tokens().last().unwrap().scope, Right::Operate);
    let change = RoomChange { name: Some("r901".parse().unwrap()), ..RoomChange::default() };
    root.set_room("r101".parse().unwrap(), change).await.unwrap();
    assert_eq!(site.works_with(&of(&token.secret)), [1]);
    root.set_machine(name("pc-1"), MachineChange { room: Some(None), ..Default::default() })
        .await
        .unwrap();
    root.remove_room("r901".parse().unwrap()).await.unwrap();
    assert_eq!(site.works_with(&of(&token.secret)), [0; 0]);
    assert_eq!(root.tokens().last().unwrap().rooms, rooms(&[]));
    assert!(make(rooms(&["r901"])).await.unwrap_err().to_string().contains("no room r901"));
    for scope in [Right::Read, Right::Admin] {
        let refused = root.add_token_for("x".into(), scope, rooms(&["r102"]), None).await;
        assert!(matches!(refused, Err(Error::NoRoomsFor(_))), "{refused:?}");
    }
}

/// What an older release does with the same database: it has the tables `user` and `token`, and knows of nothing beside.
#[tokio::test]
async fn an_older_release_lets_nobody_do_more() {
    let site = Site::new().await;
    site.add(rooms(&["r101"]), None).await;
    let all = "eva".parse::<UserName>().unwrap();
    site.root().add_user(all.clone(), Role::Teacher, PASSWORD.into()).await.unwrap();
    site.root()
        .add_token_for("night".into(), Right::Operate, rooms(&["r101"]), None)
        .await
        .unwrap();
    let Site { service, hands, folder } = site;
    drop(service);
    let path = folder.path().join("var/lib/bootlace/state.db");
    let older = rusqlite::Connection::open(&path).unwrap();
    older.execute_batch("PRAGMA foreign_keys = ON").unwrap();
    let one = |query: &str| older.query_row(query, [], |row| row.get::<_, String>(0)).unwrap();
    let role = |name: &str| one(&format!("SELECT role FROM user WHERE name = '{name}'"));
    assert_eq!((role("tom").as_str(), role("eva").as_str()), ("viewer", "teacher"));
    assert_eq!(one("SELECT scope FROM token"), "read");
    // As it gives somebody a role, or a password.
    let put = |name: &str, role: &str| {
        let put = "INSERT INTO user (name, role, password, added_unix, password_unix) VALUES (?1, ?2, 'x', 0, 0) \
                   ON CONFLICT (name) DO UPDATE SET role = excluded.role, password = excluded.password, \
                   password_unix = excluded.password_unix";
        older.execute(put, [name, role]).unwrap();
    };
    let found = || {
        let service = open(folder.path(), &hands);
        let root = service.account_keeper(&Actor::command(0)).unwrap();
        let tom = root.users().into_iter().find(|user| user.name.as_str() == "tom").unwrap();
        (tom.role, tom.reach.rooms)
    };
    put("tom", "viewer");
    assert_eq!(found(), (Role::Teacher, rooms(&["r101"])), "a password is no other role");
    put("tom", "teacher");
    assert_eq!(found(), (Role::Teacher, rooms(&["r101"])));
    put("tom", "admin");
    assert_eq!(found().0, Role::Admin);
    put("tom", "viewer");
    assert_eq!(found().0, Role::Viewer, "he was made a viewer");
    // As it gives a room another name, and removes one.
    put("tom", "teacher");
    older.execute_batch("UPDATE site_room SET name = 'r901' WHERE name = 'r101'").unwrap();
    assert_eq!(found(), (Role::Teacher, rooms(&["r901"])));
    older.execute_batch("DELETE FROM site_room WHERE name = 'r901'").unwrap();
    assert_eq!(found(), (Role::Teacher, rooms(&[])));
    older.execute_batch("DELETE FROM user WHERE name = 'tom'; DELETE FROM token").unwrap();
    for table in ["user_reach", "user_room", "token_reach", "token_room"] {
        assert_eq!(one(&format!("SELECT CAST(count(*) AS TEXT) FROM {table}")), "0", "{table}");
    }
}

#[test]
fn hours_are_what_people_write() {
    assert!("mon-fri 7:00-18:00".parse::<Hours>().is_ok());
}
