//! Files that are laid over machines' roots.

use super::secrets::{configured, segment};
use super::*;
use crate::{NewFile, RoomChange};
use initcfg::{FilesAsked, HostConfig, Laid, LaidWhat, OVERLAY_MAX, Overlay, Token, open_files};
use model::{FilesOf, SiteFile, SiteFileKind};

impl Service {
    fn root(&self) -> crate::Admin {
        self.admin(&crate::Actor::command(0)).unwrap()
    }

    async fn put_site_file(&self, new: NewFile) -> Result<(SiteFile, bool), Error> {
        self.root().put_site_file(new).await
    }

    async fn remove_site_file(&self, of: FilesOf, path: String) -> Result<(), Error> {
        self.root().remove_site_file(of, path).await
    }

    async fn site_files(&self) -> Result<Vec<SiteFile>, Error> {
        self.root().site_files().await
    }
}

fn text(path: &str, text: &str) -> NewFile {
    NewFile { path: path.to_owned(), text: Some(text.to_owned()), ..NewFile::default() }
}

fn machine() -> Option<MachineName> {
    Some("lab-07".parse().unwrap())
}

fn room() -> Option<model::RoomName> {
    Some("r101".parse().unwrap())
}

async fn fetched(service: &Service, boot: u64, token: &Token) -> Option<Vec<Laid>> {
    let asked = FilesAsked::new(boot, token);
    let sealed = service.sealed_files(ADDRESS, asked).await.unwrap()?;
    let file = open_files(token, boot, &sealed).unwrap();
    Some(Overlay::parse(&file).unwrap().entries)
}

fn content(laid: &Laid) -> String {
    match &laid.what {
        LaidWhat::File { content, .. } => String::from_utf8(content.clone()).unwrap(),
        other => format!("{other:?}"),
    }
}

async fn refused(service: &Service, new: NewFile) -> String {
    let error = service.put_site_file(new).await.unwrap_err();
    assert!(error.is_wrong_input() || error.is_not_found(), "{error}");
    error.chain()
}

#[tokio::test]
async fn a_boot_gets_the_machines_file_before_its_rooms_before_the_sites() {
    let folder = tempfile::tempdir().unwrap();
    add_image(folder.path(), "debian-12", 1);
    let service = Service::open(options(folder.path())).unwrap();
    let boot = configured(folder.path(), &service).await;
    assert!(!segment(&service, boot).await.unwrap().has_files, "nothing is laid");
    service.set_room(room().unwrap(), RoomChange::default()).await.unwrap();
    let to_room = MachineChange { room: Some(room()), ..MachineChange::default() };
    service.set_machine(machine().unwrap(), to_room).await.unwrap();
    let template = "{{bootlace.name}} {{bootlace.room}} {{bootlace.seat}} {{bootlace.address}} {{bootlace.mac}} \
                    {{bootlace.image}} {{bootlace.write_mode}} {{other}}";
    let secret = NewFile {
        machine: machine(),
        secret: true,
        owner: Some("0:42".parse().unwrap()),
        ..NewFile::of_bytes("/etc/krb5.keytab", b"\x05\x02key")
    };
    let link = NewFile {
        path: "/etc/systemd/system/multi-user.target.wants/a.service".to_owned(),
        link: Some("../a.service".to_owned()),
        ..NewFile::default()
    };
    let gone = NewFile { path: "/etc/motd".to_owned(), gone: true, ..NewFile::default() };
    for new in [
        text("/etc/ldap.conf", "site"),
        NewFile { room: room(), ..text("/etc/ldap.conf", "room") },
        NewFile { machine: machine(), ..text("/etc/ldap.conf", "machine") },
        NewFile { template: true, ..text("/etc/who", template) },
        NewFile { room: room(), ..text("/etc/printer", "in the room") },
        secret,
        link,
        gone,
    ] {
        service.put_site_file(new).await.unwrap();
    }
    let host = segment(&service, boot).await.unwrap();
    assert!(host.has_files);
    let laid = fetched(&service, boot, &host.token).await.unwrap();
    let paths: Vec<&str> = laid.iter().map(|laid| laid.path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "/etc/krb5.keytab",
            "/etc/ldap.conf",
            "/etc/motd",
            "/etc/printer",
            "/etc/systemd/system/multi-user.target.wants/a.service",
            "/etc/who",
        ]
    );
    let key = LaidWhat::File {
        content: b"\x05\x02key".to_vec(),
        mode: Some(0o600),
        owner: Some((0, 42)),
    };
    assert_eq!(laid[0].what, key);
    assert_eq!(content(&laid[1]), "machine");
    assert_eq!(laid[2].what, LaidWhat::Nothing);
    assert_eq!(laid[4].what, LaidWhat::Link { target: "../a.service".to_owned() });
    let who = format!("lab-07 r101  {ADDRESS} {MAC} debian-12 discard {{{{other}}}}");
    assert_eq!(content(&laid[5]), who);
    // What counts and what is covered is shown.
    let shown = service.root().files_on_machine(&machine().unwrap()).await.unwrap();
    let ldap = shown.iter().find(|laid| laid.file.path == "/etc/ldap.conf").unwrap();
    assert_eq!(ldap.file.of(), FilesOf::Machine(machine().unwrap()));
    let covers: Vec<FilesOf> = ldap.covers.iter().map(SiteFile::of).collect();
    assert_eq!(covers, [FilesOf::Room(room().unwrap()), FilesOf::Site]);
    // It is taken away, and the room's counts.
    service
        .remove_site_file(FilesOf::Machine(machine().unwrap()), "/etc/ldap.conf".to_owned())
        .await
        .unwrap();
    let laid = fetched(&service, boot, &host.token).await.unwrap();
    assert_eq!(content(&laid[1]), "room");
    // A renamed room keeps its files, and a removed machine has none.
    let renamed = RoomChange { name: Some("r102".parse().unwrap()), ..RoomChange::default() };
    service.set_room(room().unwrap(), renamed).await.unwrap();
    let of_room: Vec<_> =
        service.site_files().await.unwrap().into_iter().filter_map(|file| file.room).collect();
    assert_eq!(of_room, ["r102".parse().unwrap(), "r102".parse().unwrap()]);
    service.remove_machine(machine().unwrap()).await.unwrap();
    assert!(service.site_files().await.unwrap().iter().all(|file| file.machine.is_none()));
}

#[tokio::test]
async fn only_who_has_the_boots_secret_gets_its_files() {
    let folder = tempfile::tempdir().unwrap();
    add_image(folder.path(), "debian-12", 1);
    let service = Service::open(options(folder.path())).unwrap();
    let boot = configured(folder.path(), &service).await;
    service.put_site_file(text("/etc/x", "y")).await.unwrap();
    let first = segment(&service, boot).await.unwrap().token;
    let token = segment(&service, boot).await.unwrap().token;
    for (boot, token) in [(boot, Token::new([1; 32])), (boot, first), (boot + 1, token)] {
        assert_eq!(fetched(&service, boot, &token).await, None);
    }
    let asked = FilesAsked::new(boot, &token);
    let stranger = Ipv4Addr::new(10, 77, 0, 150);
    assert_eq!(service.sealed_files(stranger, asked).await.unwrap(), None);
    assert_eq!(fetched(&service, boot, &token).await.unwrap().len(), 1);
    // Who has it may ask again, as a machine that got no whole answer does; nothing is sealed the same way twice.
    let again = |service: Service| async move { service.sealed_files(ADDRESS, asked).await };
    let (one, other) = (again(service.clone()).await, again(service.clone()).await);
    assert_ne!(one.unwrap(), other.unwrap());
}

#[tokio::test]
async fn over_tls_nothing_is_sealed_by_what_others_have_heard() {
    let folder = tempfile::tempdir().unwrap();
    let (service, orders) = exchange::lab(folder.path()).await;
    service.put_site_file(text("/etc/x", "y")).await.unwrap();
    let boot = service.boot_started(MAC, Firmware::Bios).await.unwrap();
    assert_eq!(screen(&service).await, "");
    let file = service.new_host_file(ADDRESS, OWN, boot).await.unwrap().unwrap();
    let plain = HostConfig::parse(file.as_bytes()).unwrap();
    assert!(!plain.has_files, "it says nothing in clear text");
    let order = orders.lock().unwrap().last().cloned().unwrap();
    let told = HostConfig::parse(order.exchange.unwrap().text.as_bytes()).unwrap();
    assert!(told.has_files);
    let secret = plain.token.mixed(&told.token);
    assert_eq!(fetched(&service, boot, &plain.token).await, None);
    assert_eq!(fetched(&service, boot, &secret).await.unwrap().len(), 1);
    service.database().write(|_| Ok(())).await.unwrap();
    assert_eq!(fetched(&service, boot, &plain.token).await, None);
    assert_eq!(fetched(&service, boot, &secret).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_secret_is_shown_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::open(options(folder.path())).unwrap();
    let secret = |text_: &str| NewFile { secret: true, ..text("/etc/key", text_) };
    let (file, is_new) = service.put_site_file(secret("hunter2")).await.unwrap();
    assert!(is_new);
    assert_eq!((file.digest.as_ref(), file.size_bytes), (None, Some(7)));
    assert_eq!(file.mode.unwrap().to_string(), "0600");
    assert!(!service.put_site_file(secret("hunter3")).await.unwrap().1);
    let (_, content) =
        service.root().site_file(FilesOf::Site, "/etc/key".to_owned()).await.unwrap();
    assert_eq!(content, None);
    let audit = service.root().audit(None, None, 100).await.unwrap().entries;
    let told = format!("{audit:?} {:?} {:?}", secret("hunter2"), service.site_files().await);
    assert!(!told.contains("hunter"), "{told}");
    assert_eq!(audit[0].action, "files.set");
    assert!(audit[0].changes.iter().any(|it| it.field == "content"), "{audit:?}");
    // What is none is shown, and audited by its digest.
    service.put_site_file(text("/etc/x", "plain")).await.unwrap();
    let (file, content) =
        service.root().site_file(FilesOf::Site, "/etc/x".to_owned()).await.unwrap();
    assert_eq!(content.unwrap(), b"plain");
    assert_eq!(file.digest.unwrap(), blake3::hash(b"plain").to_hex().as_str());
}

#[tokio::test]
async fn what_can_not_be_laid_is_refused_when_it_is_put() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::open(options(folder.path())).unwrap();
    for path in ["etc/x", "/etc/../x", "/proc/x", "/", "/etc/x/"] {
        assert!(refused(&service, text(path, "")).await.contains("nothing can be laid at"));
    }
    let nosuch = NewFile { room: room(), ..text("/x", "") };
    assert!(refused(&service, nosuch).await.contains("no room r101"));
    let nosuch = NewFile { machine: machine(), ..text("/x", "") };
    assert!(refused(&service, nosuch).await.contains("lab-07"));
    let both = NewFile { machine: machine(), room: room(), ..text("/x", "") };
    assert!(refused(&service, both).await.contains("not both"));
    let nothing = NewFile { path: "/x".to_owned(), ..NewFile::default() };
    assert!(refused(&service, nothing).await.contains("say one of"));
    let two = NewFile { gone: true, ..text("/x", "") };
    assert!(refused(&service, two).await.contains("say one of"));
    let link = |to: &str| NewFile {
        path: "/x".to_owned(),
        link: Some(to.to_owned()),
        ..NewFile::default()
    };
    assert!(refused(&service, link("")).await.contains("a link leads"));
    assert!(refused(&service, link("a\nb")).await.contains("a link leads"));
    let secret = NewFile { secret: true, ..link("y") };
    assert!(refused(&service, secret).await.contains("only a file"));
    let base64 =
        NewFile { base64: Some("?".to_owned()), path: "/x".to_owned(), ..NewFile::default() };
    assert!(refused(&service, base64).await.contains("Base64"));
    let template = |new: NewFile| NewFile { template: true, ..new };
    let unknown = refused(&service, template(text("/x", "a\n{{bootlace.nmae}}"))).await;
    assert!(unknown.contains("line 2: {{bootlace.nmae}} stands for nothing"), "{unknown}");
    let binary = template(NewFile::of_bytes("/x", &[0xff]));
    assert!(refused(&service, binary).await.contains("UTF-8"));
    let missing = service.remove_site_file(FilesOf::Site, "/x".to_owned()).await.unwrap_err();
    assert!(missing.is_not_found() && missing.chain().contains("bootlace files ls"), "{missing}");
    assert_eq!(service.site_files().await.unwrap(), []);
}

/// Whatever is taken fits in what a machine loads, wherever it is moved.
#[tokio::test]
async fn what_is_too_much_for_one_machine_is_refused_when_it_is_put() {
    let folder = tempfile::tempdir().unwrap();
    add_image(folder.path(), "debian-12", 1);
    let service = Service::open(options(folder.path())).unwrap();
    let boot = configured(folder.path(), &service).await;
    service.set_room(room().unwrap(), RoomChange::default()).await.unwrap();
    let third = "x".repeat(OVERLAY_MAX / 3 - 400);
    let placeholders = "{{bootlace.image}}".repeat(2);
    let last = format!("{third}{placeholders}");
    for new in [
        text("/a", &third),
        NewFile { room: room(), mode: "4755".parse().ok(), ..text("/b", &third) },
        NewFile { machine: machine(), template: true, secret: true, ..text("/c", &last) },
    ] {
        service.put_site_file(new).await.unwrap();
    }
    // A room in which nobody is counts, too.
    let more = NewFile { room: room(), ..text("/d", &"x".repeat(1000)) };
    let told = refused(&service, more).await;
    assert!(told.contains("too much") && told.contains("1048576"), "{told}");
    // By itself a template of so many placeholders is short.
    let long = NewFile { template: true, ..text("/e", &"{{bootlace.name}}".repeat(20_000)) };
    assert!(refused(&service, long).await.contains("too much"));
    let to_room = MachineChange { room: Some(room()), ..MachineChange::default() };
    service.set_machine(machine().unwrap(), to_room).await.unwrap();
    let token = segment(&service, boot).await.unwrap().token;
    assert_eq!(fetched(&service, boot, &token).await.unwrap().len(), 3);
    let kinds = service.site_files().await.unwrap();
    assert!(kinds.iter().all(|file| file.kind == SiteFileKind::File));
}

#[tokio::test]
async fn the_shortest_entries_are_not_too_many() {
    let folder = tempfile::tempdir().unwrap();
    add_image(folder.path(), "debian-12", 1);
    let service = Service::open(options(folder.path())).unwrap();
    let boot = configured(folder.path(), &service).await;
    for n in 0..initcfg::LAID_MAX {
        let gone = NewFile { path: format!("/{n}"), gone: true, ..NewFile::default() };
        service.put_site_file(gone).await.unwrap();
    }
    assert!(refused(&service, text("/x", "")).await.contains("too many"));
    let token = segment(&service, boot).await.unwrap().token;
    assert_eq!(fetched(&service, boot, &token).await.unwrap().len(), initcfg::LAID_MAX);
}
