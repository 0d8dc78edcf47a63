//! What a boot's secret is good for.

use super::*;
use initcfg::{HostConfig, PowerOrder, PowerVerb, Replaces, Tag, Token};

/// A machine that has its configuration; returns its boot.
pub(super) async fn configured(root: &Path, service: &Service) -> u64 {
    lease(service, MAC, ADDRESS).await;
    let boot = service.boot_started(MAC, Firmware::Bios).await.unwrap();
    let image = Some("debian-12".parse().unwrap());
    let known = service.site().machine_by_mac(MAC).is_some();
    if !known {
        adopt(service, MAC, "lab-07".parse().unwrap(), image).await.unwrap();
        pretend_initrds(service);
        if !options(root).storage_socket.exists() {
            start_storage(root);
        }
    }
    assert_eq!(screen(service).await, "");
    boot
}

pub(super) async fn segment(service: &Service, boot: u64) -> Option<HostConfig> {
    let file = service.new_host_file(ADDRESS, OWN, boot).await.unwrap()?;
    Some(HostConfig::parse(file.as_bytes()).unwrap())
}

async fn believes(service: &Service, mac: Mac, boot: u64, text: &[u8], tag: Option<Tag>) -> bool {
    let is_believed = service.believes(mac, boot, text, tag).await;
    // What is written after a proof stands behind it.
    service.database().write(|_| Ok(())).await.unwrap();
    is_believed
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "what a test takes is no decision of the service")]
async fn a_segment_is_for_one_boot_of_one_machine() {
    let folder = tempfile::tempdir().unwrap();
    add_image(folder.path(), "debian-12", 1);
    let service = Service::open(options(folder.path())).unwrap();
    let boot = configured(folder.path(), &service).await;
    let first = segment(&service, boot).await.unwrap();
    assert_eq!((first.boot, first.reboot_seconds), (boot, 60));
    let started = std::time::Instant::now();
    let again = segment(&service, boot).await.unwrap();
    assert_ne!(again.token, first.token, "the loader asks twice");
    assert_eq!(again.ssh, first.ssh);
    println!("made in {:?}", started.elapsed());
    assert_eq!(service.host_archive(ADDRESS, OWN, boot).await.unwrap().unwrap().len() % 4, 0);

    let stranger = Ipv4Addr::new(10, 77, 0, 150);
    assert_eq!(service.new_host_file(stranger, Link::Routed, boot).await.unwrap(), None);
    let other = Mac([0x52, 0x54, 0, 0, 0, 2]);
    lease(&service, other, stranger).await;
    service.boot_started(other, Firmware::Bios).await.unwrap();
    for link in [Link::Neighbour(other), Link::Routed] {
        assert_eq!(service.new_host_file(stranger, link, boot).await.unwrap(), None);
    }
    assert_eq!(segment(&service, boot + 1).await, None);

    // From here on, users of the machine could ask.
    reached(&service, Stage::Handover).await;
    assert_eq!(segment(&service, boot).await, None);

    let next = configured(folder.path(), &service).await;
    assert_ne!(next, boot);
    let second = segment(&service, next).await.unwrap();
    assert_ne!(second.token, first.token);
    assert_eq!(second.ssh, first.ssh, "a machine keeps its SSH key");
    let ssh = second.ssh.unwrap();
    assert_eq!(ssh.replaces, Replaces::All);
    assert!(ssh.public.starts_with("ssh-ed25519 ") && ssh.public.ends_with(" lab-07"));

    service.remove_machine("lab-07".parse().unwrap()).await.unwrap();
    let fresh = configured(folder.path(), &service).await;
    assert_ne!(segment(&service, fresh).await.unwrap().ssh.unwrap().public, ssh.public);
}

#[tokio::test]
async fn a_segment_is_for_the_nic_that_boots_and_its_last_copy_counts() {
    let folder = tempfile::tempdir().unwrap();
    add_image(folder.path(), "debian-12", 1);
    let service = Service::open(options(folder.path())).unwrap();
    let boot = configured(folder.path(), &service).await;
    let first = segment(&service, boot).await.unwrap().token;
    let thief = Link::Neighbour(Mac([0x52, 0x54, 0, 0, 0, 0x66]));
    for link in [thief, Link::Silent] {
        assert_eq!(service.new_host_file(ADDRESS, link, boot).await.unwrap(), None);
    }
    let name = "lab-07".parse().unwrap();
    assert_eq!(service.machine(&name).unwrap().n_refused, 2);
    // Who is refused makes nobody's secret void; who gets it makes the former one void.
    let token = segment(&service, boot).await.unwrap().token;
    assert!(!believes(&service, MAC, boot, b"report", Some(first.tag(b"report"))).await);
    assert!(believes(&service, MAC, boot, b"report", Some(token.tag(b"report"))).await);
    assert_eq!(segment(&service, boot).await, None, "it has shown that it has it");
    assert!(believes(&service, MAC, boot, b"report", Some(token.tag(b"report"))).await);
    assert_eq!(service.machine(&name).unwrap().n_refused, 4);

    // Nobody knows the NIC of who is behind a router.
    reached(&service, Stage::Handover).await;
    let next = configured(folder.path(), &service).await;
    assert!(service.new_host_file(ADDRESS, Link::Routed, next).await.unwrap().is_some());
}

#[tokio::test]
async fn a_disk_that_is_kept_loses_only_the_image_s_key() {
    let folder = tempfile::tempdir().unwrap();
    add_image(folder.path(), "debian-12", 1);
    let service = Service::open(options(folder.path())).unwrap();
    let boot = configured(folder.path(), &service).await;
    let change =
        MachineChange { write_mode: Some(WriteMode::Persistent), ..MachineChange::default() };
    service.set_machine("lab-07".parse().unwrap(), change).await.unwrap();
    let ssh = segment(&service, boot).await.unwrap().ssh.unwrap();
    assert_eq!(ssh.replaces, Replaces::Shared(None), "this image can't be read");
}

#[tokio::test]
async fn who_has_proven_himself_can_not_be_imitated() {
    let folder = tempfile::tempdir().unwrap();
    add_image(folder.path(), "debian-12", 1);
    let service = Service::open(options(folder.path())).unwrap();
    let boot = configured(folder.path(), &service).await;
    let token = segment(&service, boot).await.unwrap().token;
    let line = b"bootlace/1 alive";
    let wrong = Some(Token::new([1; 32]).tag(line));
    assert!(believes(&service, MAC, boot, line, None).await, "an older init has no token");
    assert!(!believes(&service, MAC, boot, line, wrong).await);
    assert!(believes(&service, MAC, boot, line, None).await, "a stranger proves nothing");
    assert!(believes(&service, MAC, boot, line, Some(token.tag(line))).await);
    assert!(!believes(&service, MAC, boot, line, None).await);
    assert!(!believes(&service, MAC, boot, b"another line", Some(token.tag(line))).await);
    let view = service.machine(&"lab-07".parse().unwrap()).unwrap();
    assert_eq!(view.n_refused, 3);

    // Neither a restart of the server nor the next boot makes words of this boot good.
    let again = Service::open(options(folder.path())).unwrap();
    assert!(!believes(&again, MAC, boot, line, None).await);
    assert_eq!(segment(&again, boot).await, None, "it has it");
    reached(&service, Stage::Handover).await;
    let next = service.boot_started(MAC, Firmware::Bios).await.unwrap();
    assert_ne!(next, boot);
    assert!(!believes(&service, MAC, boot, line, None).await);
    let tag = Some(token.tag(line));
    assert!(believes(&service, MAC, boot, line, tag).await, "it may still run");
    assert!(!believes(&service, MAC, next, line, tag).await);
}

#[tokio::test]
async fn one_boot_stops_in_a_rescue_shell() {
    let folder = tempfile::tempdir().unwrap();
    add_image(folder.path(), "debian-12", 1);
    let busybox = folder.path().join("busybox");
    let with_busybox = Options { rescue_busybox: Some(busybox.clone()), ..options(folder.path()) };
    let service = Service::open(with_busybox).unwrap();
    let first = configured(folder.path(), &service).await;
    let name = "lab-07".parse().unwrap();
    let error = service.want_rescue(&name).await.unwrap_err().to_string();
    assert!(error.contains("install the Debian package busybox-static"), "{error}");
    std::fs::write(&busybox, "#!/bin/sh\n").unwrap();
    let error = service.want_rescue(&name).await.unwrap_err().to_string();
    assert!(error.contains("busybox is not a static program"), "{error}");
    std::fs::write(&busybox, static_program()).unwrap();

    let wanted = service.want_rescue(&name).await.unwrap();
    assert_eq!(service.want_rescue(&name).await.unwrap(), wanted, "until a boot has it");
    assert_eq!(service.machine(&name).unwrap().rescue, Some(wanted.clone()));
    assert!(service.preview(&name).await.unwrap().unwrap().grub_cfg.contains("/boot/rescue;"));
    assert_eq!(segment(&service, first).await.unwrap().rescue, None, "that boot is on its way");
    assert!(
        !service
            .loader_config(ADDRESS, &model::LoaderAsk::Machine)
            .await
            .text
            .contains("/boot/rescue")
    );

    reached(&service, Stage::Handover).await;
    let next = configured(folder.path(), &service).await;
    assert!(
        service
            .loader_config(ADDRESS, &model::LoaderAsk::Machine)
            .await
            .text
            .contains("/boot/rescue;")
    );
    let host = segment(&service, next).await.unwrap();
    let shown_password = wanted.password.clone().unwrap();
    let password: initcfg::RescuePassword = shown_password.parse().unwrap();
    assert_eq!(host.rescue, Some(password.hash(&host.token)));
    assert!(!host.to_file().contains(&shown_password), "the machine itself is not told");
    let shown = || service.machine(&name).unwrap().rescue;
    assert_eq!(
        shown(),
        Some(wanted.clone()),
        "nobody has shown yet that this boot is the machine's"
    );
    assert!(believes(&service, MAC, next, b"report", Some(host.token.tag(b"report"))).await);
    service.database().write(|_| Ok(())).await.unwrap();
    let shown = shown().unwrap();
    assert_eq!((&shown.password, shown.boot), (&wanted.password, Some(next)));
    let again = service.want_rescue(&name).await.unwrap();
    assert_ne!(again.password, wanted.password, "each boot has its own");
    service.forget_rescue(&name).await.unwrap();
    assert_eq!(service.machine(&name).unwrap().rescue, Some(shown), "it goes on stopping");
    reached(&service, Stage::Attach).await;
    assert_eq!(service.machine(&name).unwrap().rescue, None);

    reached(&service, Stage::Handover).await;
    let last = configured(folder.path(), &service).await;
    assert_eq!(segment(&service, last).await.unwrap().rescue, None);
}

#[tokio::test]
async fn a_wanted_rescue_shell_goes_with_its_machine() {
    let folder = tempfile::tempdir().unwrap();
    let busybox = folder.path().join("busybox");
    std::fs::write(&busybox, static_program()).unwrap();
    let with_busybox = Options { rescue_busybox: Some(busybox), ..options(folder.path()) };
    let service = Service::open(with_busybox).unwrap();
    let name: MachineName = "lab-07".parse().unwrap();
    adopt(&service, MAC, name.clone(), None).await.unwrap();
    service.want_rescue(&name).await.unwrap();
    service.remove_machine(name.clone()).await.unwrap();
    adopt(&service, MAC, name.clone(), None).await.unwrap();
    assert_eq!(service.machine(&name).unwrap().rescue, None);
}

/// As much of one as is looked at.
fn static_program() -> Vec<u8> {
    let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
    bytes.resize(64 + 56, 0);
    let machine: u8 = if cfg!(target_arch = "aarch64") { 183 } else { 62 };
    for (offset, value) in [(16, 2), (18, machine), (32, 64), (54, 56), (56, 1), (64, 1)] {
        bytes[offset] = value;
    }
    bytes
}

#[tokio::test]
async fn a_machine_is_told_to_stop_until_it_obeys() {
    let folder = tempfile::tempdir().unwrap();
    add_image(folder.path(), "debian-12", 1);
    let service = Service::open(options(folder.path())).unwrap();
    let boot = configured(folder.path(), &service).await;
    let name = "lab-07".parse().unwrap();
    let error = service.order(&name, PowerVerb::Reboot).await.unwrap_err();
    assert!(error.to_string().contains("can't be told to stop"), "{error}");
    let token = segment(&service, boot).await.unwrap().token;
    assert!(believes(&service, MAC, boot, b"alive", Some(token.tag(b"alive"))).await);

    for (counter, verb) in [(1, PowerVerb::Reboot), (2, PowerVerb::Poweroff)] {
        assert_eq!(service.order(&name, verb).await.unwrap().counter, counter);
    }
    let [(of, datagram)] = &service.open_orders()[..] else { panic!("one machine, one order") };
    let (line, tag) = initcfg::unseal(datagram.as_bytes());
    assert_eq!((*of, tag), (boot, Some(token.tag(line))));
    let order = PowerOrder { boot, counter: 2, verb: PowerVerb::Poweroff };
    assert_eq!(PowerOrder::parse(line), Ok(order));
    service.obeyed(MAC, boot, 1).await.unwrap();
    assert_eq!(service.open_orders().len(), 1, "that was the former order");
    service.obeyed(MAC, boot, 2).await.unwrap();
    assert_eq!(service.open_orders(), []);
    assert!(service.machine(&name).unwrap().power.unwrap().obeyed_unix_ms.is_some());
}

#[tokio::test]
async fn what_can_not_be_looked_up_is_not_believed() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::open(options(folder.path())).unwrap();
    let first = service.boot_started(MAC, Firmware::Bios).await.unwrap();
    reached(&service, Stage::Config).await;
    service.boot_started(MAC, Firmware::Bios).await.unwrap();
    let proof = service.database().read(move |tables| tables.proof(MAC, first)).await.unwrap();
    let tag = Some(proof.unwrap().token.unwrap().tag(b"alive"));
    assert!(service.believes(MAC, first, b"alive", tag).await);
    assert!(!service.believes(MAC, first, b"alive", None).await, "an earlier boot's is proven");
    assert!(!service.believes(MAC, first + 9, b"alive", None).await, "there is no such boot");
    assert!(!service.believes(MAC, first + 9, b"alive", tag).await);
    let database = options(folder.path()).database;
    std::fs::rename(&database, database.with_extension("away")).unwrap();
    assert!(!service.believes(MAC, first, b"alive", tag).await);
}
