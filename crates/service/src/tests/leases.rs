//! Addresses: who has which, and what people change of them.

use super::*;
use crate::{
    Actor, Admin, FixWish, ImportedLease, LeaseError, LeaseKind, LeaseNews, LeaseView,
    LeasedNetwork, Leasing,
};
use std::collections::BTreeMap;

const OTHER: Mac = Mac([0x52, 0x54, 0, 0, 0, 2]);
const RESERVED: Mac = Mac([0x52, 0x54, 0, 0, 0, 9]);

fn ip(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, last)
}

fn ours() -> Leasing {
    Leasing::Ours(vec![LeasedNetwork {
        subnet: ip(0),
        prefix: 24,
        server: ip(1),
        router: Some(ip(254)),
        pool: (ip(100), ip(199)),
        reserved: BTreeMap::from([(RESERVED, ip(20))]),
    }])
}

fn site(leasing: Leasing) -> (tempfile::TempDir, Service, Admin) {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::open(Options { leasing, ..options(folder.path()) }).unwrap();
    let admin = service.admin(&Actor::command(0)).unwrap();
    (folder, service, admin)
}

/// `ADDRESS MAC KIND`, of each.
async fn listed(admin: &Admin) -> Vec<String> {
    let short = |it: LeaseView| {
        let mac = it.mac.map_or_else(|| "-".to_owned(), |mac| mac.to_string());
        format!("{} {mac} {:?}", it.address, it.kind)
    };
    admin.leases().await.unwrap().into_iter().map(short).collect()
}

fn imported(mac: Mac, last: u8, ends_unix: Option<u64>) -> ImportedLease {
    ImportedLease {
        line: Some(7),
        mac,
        address: ip(last),
        ends_unix,
        host_name: Some("a b".into()),
    }
}

#[tokio::test]
async fn addresses_are_listed_with_whose_they_are() {
    let (_folder, service, admin) = site(ours());
    adopt(&service, MAC, "lab-07".parse().unwrap(), None).await.unwrap();
    lease(&service, MAC, ADDRESS).await;
    let now = service.lease_clock_unix();
    let ended =
        Lease { mac: OTHER, address: ip(102), expires_unix: now, host_name: Some("x".into()) };
    service.commit_lease(ended).await.unwrap();
    service.commit_declined(ip(103), now + 600).await.unwrap();
    let expected = [
        "10.77.0.20 52:54:00:00:00:09 Reserved",
        "10.77.0.101 52:54:00:00:00:01 Lease",
        "10.77.0.102 52:54:00:00:00:02 Ended",
        "10.77.0.103 - Declined",
    ];
    assert_eq!(listed(&admin).await, expected);
    let all = admin.leases().await.unwrap();
    assert_eq!(all[1].machine.as_ref().unwrap().as_str(), "lab-07");
    assert_eq!((all[1].ends_unix, all[1].network.as_deref()), (None, Some("10.77.0.0/24")));
    assert_eq!(all[2].host_name.as_deref(), Some("x"));
    let json = serde_json::to_value(&all[0]).unwrap();
    assert_eq!((&json["kind"], &json["reserved_in"]), (&"reserved".into(), &"file".into()));

    let (_folder, service, admin) = site(Leasing::Others);
    service.has_address(MAC, ADDRESS).await.unwrap();
    assert_eq!(listed(&admin).await, ["10.77.0.101 52:54:00:00:00:01 Learned"]);
}

#[tokio::test]
async fn a_lease_is_freed_and_a_reserved_address_is_not() {
    let (_folder, service, admin) = site(ours());
    let mut news = service.lease_news();
    lease(&service, MAC, ADDRESS).await;
    lease(&service, RESERVED, ip(20)).await;
    let now = service.lease_clock_unix();
    service.commit_declined(ip(103), now + 600).await.unwrap();
    let freed = admin.free_lease(ADDRESS).await.unwrap();
    assert_eq!((freed.mac, freed.had_ended), (Some(MAC), false));
    assert_eq!(news.try_recv().unwrap(), LeaseNews::Freed(MAC, ADDRESS));
    assert_eq!(admin.free_lease(ip(103)).await.unwrap().mac, None);
    assert_eq!(news.try_recv().unwrap(), LeaseNews::Rested(ip(103)));
    assert!(service.declined(600).await.unwrap().is_empty());
    let told = admin.free_lease(ip(20)).await.unwrap_err().to_string();
    let lines = "\"52:54:00:00:00:09\" = \"10.77.0.20\" out of reserve below [network]";
    assert!(told.contains(lines), "{told}");
    assert_eq!(service.owner_of(ip(20)), Some(RESERVED), "nothing of it was done");
    let nobodys = admin.free_lease(ADDRESS).await.unwrap_err();
    assert!(nobodys.is_not_found() && nobodys.to_string().contains("leased to nobody"));
    admin.fix_address(ip(105), FixWish { mac: Some(MAC), machine: None }).await.unwrap();
    let told = admin.free_lease(ip(105)).await.unwrap_err().to_string();
    assert!(told.contains("bootlace lease fix 10.77.0.105 --undo"), "{told}");
    service.note_heard(ip(106), OTHER, now + 600);
    let heard = listed(&admin).await;
    assert!(heard.contains(&"10.77.0.106 52:54:00:00:00:02 Declined".to_owned()), "{heard:?}");
    assert_eq!(admin.free_lease(ip(106)).await.unwrap().mac, None);
    assert!(!listed(&admin).await.iter().any(|it| it.starts_with("10.77.0.106")));
    // Somebody else holds what is reserved.
    lease(&service, OTHER, ip(105)).await;
    let freed = admin.free_lease(ip(105)).await.unwrap();
    assert_eq!((freed.mac, freed.reserved_for), (Some(OTHER), Some(MAC)));
    let audit = admin.audit(None, None, 10).await.unwrap().entries;
    let done: Vec<_> = audit.iter().map(|it| format!("{} {}", it.action, it.subject)).collect();
    let expected = [
        "lease.free 10.77.0.105",
        "lease.free 10.77.0.106",
        "lease.fix 10.77.0.105",
        "lease.free 10.77.0.103",
        "lease.free 10.77.0.101",
    ];
    assert_eq!(done, expected);
}

#[tokio::test]
async fn an_address_is_fixed_for_its_card_and_the_configuration_counts_more() {
    let (_folder, service, admin) = site(ours());
    let name: MachineName = "lab-07".parse().unwrap();
    adopt(&service, MAC, name.clone(), None).await.unwrap();
    lease(&service, MAC, ADDRESS).await;
    lease(&service, OTHER, ip(102)).await;
    let of = |machine: &MachineName| FixWish { machine: Some(machine.clone()), mac: None };
    let fixed = admin.fix_address(ADDRESS, FixWish::default()).await.unwrap();
    assert_eq!((fixed.mac, fixed.machine.as_ref(), fixed.has_now), (MAC, Some(&name), None));
    let fixed = admin.fix_address(ip(30), of(&name)).await.unwrap();
    assert_eq!((fixed.former, fixed.has_now), (Some(ADDRESS), Some(ADDRESS)));
    assert_eq!(*service.fixed_addresses(), BTreeMap::from([(MAC, ip(30))]));
    let in_file = FixWish { mac: Some(RESERVED), machine: None };
    assert!(admin.fix_address(ip(20), in_file.clone()).await.unwrap().is_in_file);
    for (last, wish, words) in [
        (102, of(&name), "52:54:00:00:00:02's now: free it first"),
        (20, of(&name), "reserved for 52:54:00:00:00:09 in bootlace.toml"),
        (21, in_file, "\"52:54:00:00:00:09\" = \"10.77.0.21\""),
        (30, FixWish { mac: Some(OTHER), machine: None }, "fixed for lab-07"),
        (1, of(&name), "the boot server's own"),
        (254, of(&name), "the router's"),
        (255, of(&name), "no host of its network"),
        (150, FixWish::default(), "say whose it shall be"),
        (150, FixWish { mac: Some(OTHER), ..of(&name) }, "no network card of lab-07"),
        (150, of(&"lab-09".parse().unwrap()), "lab-09"),
    ] {
        let told = admin.fix_address(ip(last), wish).await.unwrap_err().to_string();
        assert!(told.contains(words), "{told}");
    }
    let far = admin.fix_address([192, 168, 9, 9].into(), of(&name)).await.unwrap_err().to_string();
    assert!(far.contains("no network that Bootlace serves (10.77.0.0/24)"), "{far}");
    assert_eq!(admin.unfix_address(ip(30)).await.unwrap(), MAC);
    assert!(service.fixed_addresses().is_empty());
    assert!(admin.unfix_address(ip(30)).await.unwrap_err().is_not_found());
    let told = admin.unfix_address(ip(20)).await.unwrap_err().to_string();
    assert!(told.contains("out of reserve"), "{told}");

    let (_folder, _, admin) = site(Leasing::Others);
    let told = admin.fix_address(ip(30), FixWish::default()).await.unwrap_err();
    assert!(matches!(told, Error::Lease(LeaseError::ByOthers)), "{told}");
}

#[tokio::test]
async fn leases_of_another_server_are_taken_and_what_is_not_is_told() {
    let (_folder, service, admin) = site(ours());
    let mac = |n: u8| Mac([2, 0, 0, 0, 0, n]);
    adopt(&service, MAC, "lab-07".parse().unwrap(), None).await.unwrap();
    lease(&service, MAC, ADDRESS).await;
    let now = service.now().unix();
    service.commit_declined(ip(103), service.lease_clock_unix() + 600).await.unwrap();
    let later = Some(now + 3600);
    let leases = vec![
        imported(mac(1), 110, later),
        imported(mac(2), 111, None),
        imported(mac(3), 112, Some(now)),
        imported(MAC, 101, later),
        imported(mac(4), 101, later),
        imported(MAC, 113, later),
        imported(mac(5), 110, later),
        imported(mac(1), 114, later),
        imported(mac(6), 99, later),
        imported(mac(7), 20, later),
        imported(RESERVED, 115, later),
        imported(RESERVED, 20, later),
        imported(mac(8), 1, later),
        imported(mac(9), 103, later),
        imported(Mac::BROADCAST, 116, later),
        ImportedLease { address: [192, 168, 9, 9].into(), ..imported(mac(10), 0, later) },
    ];
    let trial = admin.import_leases(leases.clone(), true).await.unwrap();
    assert_eq!(service.owner_of(ip(110)), None, "it was a trial");
    let mut news = service.lease_news();
    let told = admin.import_leases(leases.clone(), false).await.unwrap();
    assert_eq!(told, trial);
    assert_eq!((told.n_taken, told.n_known, told.n_ended), (3, 1, 1));
    let why: Vec<_> = told.left_out.iter().map(|it| it.why.as_str()).collect();
    let expected = [
        "it is lab-07 (52:54:00:00:00:01)'s here, and stays so",
        "lab-07 (52:54:00:00:00:01) has 10.77.0.101 here, and keeps it",
        "it is 02:00:00:00:00:01's here, and stays so",
        "02:00:00:00:00:01 has 10.77.0.110 here, and keeps it",
        "it lies outside of the pool 10.77.0.100-10.77.0.199",
        "it is reserved for 52:54:00:00:00:09",
        "52:54:00:00:00:09 has 10.77.0.20 for ever",
        "it is the boot server's own",
        "somebody uses it without a lease: bootlace lease free has it given again",
        "no network card has the MAC address ff:ff:ff:ff:ff:ff",
        "it lies in no network that Bootlace serves",
    ];
    assert_eq!(why, expected);
    let LeaseNews::Taken(taken) = news.try_recv().unwrap() else { panic!("not told") };
    assert_eq!(taken.len(), 3);
    assert_eq!(taken[0].host_name.as_deref(), Some("a?b"));
    assert_eq!(service.owner_of(ip(110)), Some(mac(1)));
    let forever = admin.leases().await.unwrap().into_iter().find(|it| it.address == ip(111));
    assert_eq!(forever.unwrap().ends_unix, None);
    let again = admin.import_leases(leases, false).await.unwrap();
    assert_eq!((again.n_taken, again.n_known), (0, 4), "it may be done twice");
    assert!(admin.leases().await.unwrap().iter().all(|it| it.kind != LeaseKind::Learned));
}

#[tokio::test]
async fn nothing_is_taken_of_too_many_and_where_others_give_addresses() {
    let (_folder, service, admin) = site(ours());
    let later = Some(service.now().unix() + 3600);
    let too_many = vec![imported(OTHER, 110, later); 65_537];
    let told = admin.import_leases(too_many, false).await.unwrap_err().to_string();
    assert!(told.contains("split the file"), "{told}");
    assert_eq!(service.owner_of(ip(110)), None);
    for leasing in [Leasing::Others, Leasing::default()] {
        let (_folder, _, admin) = site(leasing);
        let one = vec![imported(OTHER, 110, later)];
        assert!(admin.import_leases(one, false).await.unwrap_err().is_wrong_input());
    }
}
