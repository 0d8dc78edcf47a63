use super::*;
use alloc::string::ToString as _;

/// 2026-11-29 07:35:36 UTC.
const NOW: u64 = 1_795_937_736;

const DNSMASQ: &str = "\
1796020000 52:54:00:00:00:01 10.0.5.101 lab-01 01:52:54:00:00:00:01
0 52:54:00:00:00:02 10.0.5.102 * *
1795937736 52:54:00:00:00:03 10.0.5.103 gone *
1796020000 06-00:11:22:33:44:55:66 10.0.5.104 tape *
1796030000 52:54:00:00:00:01 10.0.5.105 lab-01 ff:00
duid 00:01:00:01:2b:9d
1796020000 1234 fd00::5 lab-01 00:01
";

const ISC: &str = r#"# The format of this file is documented in the dhcpd.leases(5) manual page.
# This lease file was written by isc-dhcp-4.4.3-P1

# authoring-byte-order entry is generated, DO NOT DELETE
authoring-byte-order little-endian;

lease 10.0.5.101 {
  starts 0 2026/11/29 06:00:00;
  ends 0 2026/11/29 07:00:00;
  cltt 0 2026/11/29 06:00:00;
  binding state active;
  next binding state free;
  rewind binding state free;
  hardware ethernet 52:54:00:00:00:01;
  uid "\001RT\000\000\000\001";
  client-hostname "lab-01";
}
server-duid "\000\001\000\001\"{};# no remark";
lease 10.0.5.101 {
  starts 0 2026/11/29 07:30:00;
  ends 0 2026/11/29 19:30:00;
  binding state active;
  hardware ethernet 52:54:00:00:00:01;
  set vendor-class-identifier = "PXEClient:Arch:00000";
  client-hostname "lab-01";
  on expiry {
    if known { execute("/bin/x"); }
  }
}
lease 10.0.5.102 { ends never; hardware ethernet 52:54:00:00:00:02; }
lease 10.0.5.103 { starts epoch 1795937000; # a local time
  ends epoch 1796020000; # another
  binding state active; hardware ethernet 52:54:00:00:00:03; }
lease 10.0.5.104 { ends 0 2026/11/29 19:30:00; binding state free; hardware ethernet 52:54:00:00:00:04; }
lease 10.0.5.105 { ends 0 2026/11/29 19:30:00; binding state abandoned; }
lease 10.0.5.106 { ends 0 2026/11/29 19:30:00; binding state active; uid "x"; }
lease 10.0.5.107 { ends 0 2026/11/29 07:35:36; binding state active; hardware ethernet 52:54:00:00:00:07; }
failover peer "x" state { my state normal at 0 2026/11/29 07:30:00; }
host printer { dynamic; hardware ethernet 52:54:00:00:00:09; fixed-address 10.0.5.9; }
"#;

const KEA: &str = "\
address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,hostname,state,user_context,pool_id
10.0.5.101,52:54:00:00:00:01,01:52:54:00:00:00:01,3600,1795930000,1,0,0,lab-01,0,,0
10.0.5.102,52:54:00:00:00:02,,4294967295,1795930000,1,0,0,lab-02.example.,0,{ \"a\": 1&#x2c \"b\": 2 },0
10.0.5.103,52:54:00:00:00:03,,3600,1796020000,1,0,0,,1,,0
10.0.5.104,52:54:00:00:00:04,,3600,1796020000,1,0,0,,2,,0
10.0.5.105,52:54:00:00:00:05,,3600,1796020000,1,0,0,,0,,0
10.0.5.105,52:54:00:00:00:05,,0,1796020000,1,0,0,,0,,0
address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,hostname,state,user_context,pool_id
10.0.5.101,52:54:00:00:00:01,01:52:54:00:00:00:01,3600,1796020000,1,0,0,lab-01,0,,0
10.0.5.106,,01:02,3600,1796020000,1,0,0,,0,,0
";

fn read(text: &str) -> Result<LeaseFile, BadLeaseFile> {
    let format = LeaseFormat::of(text.as_bytes()).ok_or(BadLeaseFile::Unknown)?;
    LeaseFile::parse(text.as_bytes(), format, NOW)
}

/// What is read, in words.
fn told(text: &str) -> Vec<String> {
    let file = read(text).unwrap_or_else(|error| panic!("{error}"));
    let lease = |it: ForeignLease| {
        let ends = it.ends_unix.map_or_else(|| "never".to_owned(), |ends| ends.to_string());
        let name = it.host_name.unwrap_or_default();
        format!("{}: {} {} {ends} {name}", it.line, it.address, it.mac).trim_end().to_owned()
    };
    let leases = file.leases.into_iter().map(lease);
    let left_out = file.left_out.into_iter().map(|it| format!("{}: {}", it.line, it.why));
    leases.chain(left_out).chain([format!("{} ended", file.n_ended)]).collect()
}

fn refused(text: &str) -> String {
    read(text).expect_err(text).to_string()
}

#[test]
fn leases_of_dnsmasq_are_read() {
    let expected = [
        "2: 10.0.5.102 52:54:00:00:00:02 never",
        "5: 10.0.5.105 52:54:00:00:00:01 1796030000 lab-01",
        "1: 10.0.5.101: 52:54:00:00:00:01 has another lease, which ends later",
        "4: 10.0.5.104: its client has no Ethernet address",
        "6: leases of DHCPv6 follow, which Bootlace gives none",
        "1 ended",
    ];
    assert_eq!(told(DNSMASQ), expected);
}

#[test]
fn the_last_entry_of_an_address_in_dhcpd_s_log_counts() {
    let expected = [
        "19: 10.0.5.101 52:54:00:00:00:01 1795980600 lab-01",
        "30: 10.0.5.102 52:54:00:00:00:02 never",
        "31: 10.0.5.103 52:54:00:00:00:03 1796020000",
        "35: 10.0.5.105: dhcpd has found that somebody uses it without a lease",
        "36: 10.0.5.106: its client has no Ethernet address",
    ];
    let mut told = told(ISC);
    assert_eq!(told.pop().unwrap(), "2 ended");
    let host = told.pop().unwrap();
    assert!(host.starts_with("39: a host that dhcpd was told of"), "{host}");
    assert_eq!(told, expected);
}

#[test]
fn the_last_line_of_an_address_in_kea_s_log_counts() {
    let expected = [
        "9: 10.0.5.101 52:54:00:00:00:01 1796020000 lab-01",
        "3: 10.0.5.102 52:54:00:00:00:02 never lab-02.example",
        "4: 10.0.5.103: Kea was told that somebody uses it without a lease",
        "10: 10.0.5.106: its client has no Ethernet address",
        "2 ended",
    ];
    assert_eq!(told(KEA), expected);
}

#[test]
fn what_is_not_understood_is_told_with_its_line_and_nothing_is_read() {
    for (text, words) in [
        ("1796020000 52:54:00:00:00:01 10.0.5.101\n", "line 1: a lease of dnsmasq is five words"),
        ("\n1 52:54:00:00:00:01 10.0.5 x *\n", "line 2: \"10.0.5\" is no IPv4 address"),
        ("1 lab-01 10.0.5.101 x *\n", "line 1: \"lab-01\" is not a MAC address"),
        ("99999999999999999999 52:54:00:00:00:01 10.0.5.101 x *\n", "line 1: \"99999999"),
        ("lease 10.0.5.101 {\n  ends 0 2026/13/29 07:35:36;\n}\n", "line 2: \"2026/13/29"),
        ("lease 10.0.5.101 {\n  binding state active", "line 1: the file ends in the middle"),
        ("lease 10.0.5.101 {\n  uid \"x\n", "line 1: the file ends in the middle"),
        ("lease x {\n}\n", "line 1: \"x\" is no IPv4 address"),
        ("lease 10.0.5.101 {\n}\n}\n", "line 3: a } here closes nothing"),
        ("lease 10.0.5.1 {\n ends never }\n", "line 2: \"ends never\" does not end with ;"),
        ("address,duid,valid_lifetime,expire\n", "line 1: these are leases of DHCPv6"),
        ("address,hwaddr,expire\n", "line 1: there is no column \"valid_lifetime\""),
        ("address,hwaddr,valid_lifetime,expire\n10.0.5.1,x,1\n", "line 2: here are 3 columns"),
        ("{ \"leases\": [] }\n", "this is no file of leases"),
        ("", "this is no file of leases"),
    ] {
        let error = refused(text);
        assert!(error.starts_with(words), "{text:?}: {error}");
    }
    let long = format!("{} 52:54:00:00:00:01 10.0.5.101 x *\n", "9".repeat(1 << 20));
    assert!(refused(&long).len() < 200);
    let deep = format!("group {}", "{ ".repeat(1 << 16));
    assert!(refused(&deep).contains("more blocks in blocks"));
}

#[test]
fn no_prefix_panics_and_none_makes_a_lease_of_half_a_line() {
    for whole in [DNSMASQ, ISC, KEA] {
        let all = read(whole).unwrap();
        for length in 0..whole.len() {
            for format in LeaseFormat::ALL {
                let Ok(file) = LeaseFile::parse(&whole.as_bytes()[..length], format, NOW) else {
                    continue;
                };
                // A name may be cut.
                let is_known = |lease: &ForeignLease| {
                    let known = all.leases.iter().any(|it| it.address == lease.address);
                    let older =
                        all.left_out.iter().any(|it| it.why.contains(&lease.address.to_string()));
                    known || older || lease.address == Ipv4Addr::new(10, 0, 5, 105)
                };
                assert!(file.leases.iter().all(is_known), "{length}: {:?}", file.leases);
            }
        }
    }
}

#[test]
fn times_of_dhcpd_are_those_of_the_calendar() {
    let time = |text: &str| {
        let (date, time) = text.split_once(' ').unwrap();
        isc::unix(date, time)
    };
    assert_eq!(time("1970/01/01 00:00:00"), Some(0));
    assert_eq!(time("2000/02/29 12:00:00"), Some(951_825_600));
    assert_eq!(time("2026/11/29 07:35:36"), Some(NOW));
    for wrong in ["1969/12/31 23:59:59", "2026/0/1 0:0:0", "2026/11/29 24:00:00", "2026/11 0:0:0"] {
        assert_eq!(time(wrong), None, "{wrong}");
    }
}

proptest::proptest! {
    /// Whatever is changed in a file, it is read or refused, and no lease is of nobody or over.
    #[test]
    fn a_file_that_is_damaged_anywhere_is_read_or_refused(
        which in 0usize..3,
        changes in proptest::collection::vec((0usize..2000, proptest::num::u8::ANY), 1..8),
    ) {
        let mut file = [DNSMASQ, ISC, KEA][which].as_bytes().to_vec();
        for (at, byte) in changes {
            let at = at % file.len();
            file[at] = byte;
        }
        for format in LeaseFormat::ALL {
            let Ok(read) = LeaseFile::parse(&file, format, NOW) else { continue };
            for lease in &read.leases {
                proptest::prop_assert!(lease.mac.is_of_a_nic());
                proptest::prop_assert!(lease.ends_unix.is_none_or(|ends| ends > NOW));
            }
        }
    }
}
