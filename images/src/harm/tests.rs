//! Each check with a system that hurts, and systems that don't.

use super::*;
use initcfg::{LaidWhat, OnlyIf};
use proptest::prelude::*;

/// Names of the disk of all systems here.
const ON_DISK: [&str; 3] = ["UUID=1111", "UUID=2222", "LABEL=boot"];

const SHADOW_WITH_ROOT: &str = "root:$y$hash:1::::::\n";

type Files = &'static [(&'static str, &'static str)];

fn planted(files: &[(&str, &str)]) -> Planted {
    let owned = |(path, text): &(&str, &str)| ((*path).to_owned(), text.as_bytes().to_vec());
    Planted::new(files.iter().map(owned).collect())
}

fn seen(files: &[(&str, &str)]) -> Look {
    look_at(Tree::new(&planted(files)), DiskNames::of(&ON_DISK)).unwrap()
}

fn ids(look: &Look) -> Vec<&str> {
    look.harms.iter().map(|harm| harm.check.as_str()).collect()
}

/// For each check a system that has just that, and where it is.
const HURT: &[(&str, Files, &str)] = &[
    (
        "fstab-mount",
        &[(
            "/etc/fstab",
            "UUID=1111 / ext4 defaults 0 1\nUUID=ABCD-0001 /boot/efi vfat umask=0077 0 1\n",
        )],
        "/etc/fstab:2",
    ),
    ("selinux-relabel", &[("/.autorelabel", "")], "/.autorelabel"),
    (
        "wait-online",
        &[
            ("/usr/lib/systemd/system/systemd-networkd-wait-online.service", "[Service]\n"),
            (
                "/etc/systemd/system/network-online.target.wants/systemd-networkd-wait-online.service",
                "",
            ),
            (
                "/etc/systemd/system/systemd-networkd-wait-online.service.d/x.conf",
                "[Service]\nExecStart=/usr/lib/x --timeout=0\n",
            ),
        ],
        "/etc/systemd/system/systemd-networkd-wait-online.service.d/x.conf:2",
    ),
    (
        "swap-on-disk",
        &[("/etc/fstab", "/swap.img none swap sw 0 0\n"), ("/swap.img", "")],
        "/etc/fstab:1",
    ),
    (
        "network-bridge",
        &[("/etc/network/interfaces", "iface br0 inet dhcp\n  bridge_ports eth0\nauto br0 br1\n")],
        "/etc/network/interfaces:2",
    ),
    (
        "network-service",
        &[
            ("/lib/systemd/system/dhcpcd.service", ""),
            (
                "/etc/systemd/system/multi-user.target.wants/dhcpcd.service",
                "-> /lib/systemd/system/dhcpcd.service",
            ),
        ],
        "",
    ),
    (
        "vpn-all-traffic",
        &[
            ("/usr/lib/systemd/system/wg-quick@.service", ""),
            (
                "/etc/systemd/system/multi-user.target.wants/wg-quick@home.service",
                "-> /usr/lib/systemd/system/wg-quick@.service",
            ),
            ("/etc/wireguard/home.conf", "[Peer]\nAllowedIPs = 10.0.0.0/8, 0.0.0.0/0\n"),
        ],
        "/etc/wireguard/home.conf:2",
    ),
    (
        "firewall-nftables",
        &[
            ("/lib/systemd/system/nftables.service", ""),
            (
                "/etc/systemd/system/sysinit.target.wants/nftables.service",
                "-> /lib/systemd/system/nftables.service",
            ),
            ("/etc/nftables.conf", "include \"/etc/nftables.d/*.nft\"\n"),
            (
                "/etc/nftables.d/in.nft",
                "table inet f {\nchain i {\ntype filter hook input priority 0; policy drop;\niif lo accept\n}\n}\n",
            ),
        ],
        "/etc/nftables.d/in.nft:3",
    ),
    (
        "firewall-iptables",
        &[
            ("/lib/systemd/system/netfilter-persistent.service", ""),
            ("/etc/systemd/system/multi-user.target.wants/netfilter-persistent.service", ""),
            (
                "/etc/iptables/rules.v4",
                "*filter\n:INPUT DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n-A INPUT -p tcp --dport 22 -j ACCEPT\nCOMMIT\n",
            ),
        ],
        "/etc/iptables/rules.v4:2",
    ),
    (
        "firewall-ufw",
        &[
            ("/lib/systemd/system/ufw.service", ""),
            ("/etc/systemd/system/multi-user.target.wants/ufw.service", ""),
            ("/etc/ufw/ufw.conf", "ENABLED=yes\n"),
            ("/etc/default/ufw", "IPV6=yes\nDEFAULT_OUTPUT_POLICY=\"DROP\"\n"),
        ],
        "/etc/default/ufw:2",
    ),
    (
        "sleep",
        &[
            ("/lib/systemd/system/sleep.target", ""),
            ("/lib/systemd/system/suspend.target", ""),
            ("/lib/systemd/system/gdm.service", ""),
        ],
        "",
    ),
    ("fstab-swap", &[("/etc/fstab", "# /etc/fstab\nUUID=3333 none swap sw 0 0\n")], "/etc/fstab:2"),
    ("crypttab", &[("/etc/crypttab", "secret UUID=1111 none luks\n")], "/etc/crypttab:1"),
    ("cloud-init", &[("/usr/lib/systemd/system/cloud-init.service", "")], "/etc/cloud"),
    (
        "unattended-upgrades",
        &[
            ("/usr/bin/unattended-upgrade", ""),
            ("/lib/systemd/system/apt-daily-upgrade.timer", ""),
            ("/etc/systemd/system/timers.target.wants/apt-daily-upgrade.timer", ""),
            (
                "/etc/apt/apt.conf.d/20auto-upgrades",
                "APT::Periodic::Update-Package-Lists \"0\";\nAPT::Periodic::Unattended-Upgrade \"1\";\n",
            ),
        ],
        "/etc/apt/apt.conf.d/20auto-upgrades:2",
    ),
    (
        "apt-lists",
        &[
            ("/lib/systemd/system/apt-daily.timer", ""),
            ("/etc/systemd/system/timers.target.wants/apt-daily.timer", ""),
            ("/etc/apt/apt.conf.d/20auto-upgrades", "APT::Periodic::Update-Package-Lists \"1\";\n"),
        ],
        "/etc/apt/apt.conf.d/20auto-upgrades:1",
    ),
    (
        "packagekit",
        &[
            ("/lib/systemd/system/packagekit.service", ""),
            ("/etc/xdg/autostart/org.gnome.Software.desktop", ""),
        ],
        "/etc/xdg/autostart/org.gnome.Software.desktop",
    ),
    (
        "snap-refresh",
        &[
            ("/var/lib/snapd/snaps/core20_1.snap", ""),
            ("/lib/systemd/system/snapd.service", ""),
            ("/etc/systemd/system/multi-user.target.wants/snapd.service", ""),
        ],
        "/var/lib/snapd/snaps",
    ),
    ("journal-on-disk", &[("/var/log/journal/abc/system.journal", "")], "/var/log/journal"),
    (
        "graphics-card",
        &[(
            "/etc/X11/xorg.conf",
            "Section \"Device\"\n  Identifier \"x\"\n  Driver \"nvidia\"\nEndSection\n",
        )],
        "/etc/X11/xorg.conf:3",
    ),
    (
        "card-names",
        &[(
            "/etc/udev/rules.d/70-persistent-net.rules",
            "# x\nSUBSYSTEM==\"net\", ATTR{address}==\"00:11:22:33:44:55\", NAME=\"eth0\"\n",
        )],
        "/etc/udev/rules.d/70-persistent-net.rules:2",
    ),
    (
        "no-login",
        &[
            ("/etc/passwd", "root:x:0:0::/root:/bin/bash\nbin:x:2:2::/bin:/usr/sbin/nologin\n"),
            ("/etc/shadow", "root:*:1::::::\nbin:*:1::::::\n"),
        ],
        "/etc/shadow",
    ),
    (
        "first-assistant",
        &[
            ("/usr/libexec/gnome-initial-setup", ""),
            ("/etc/passwd", "root:x:0:0::/root:/bin/bash\n"),
            ("/etc/shadow", SHADOW_WITH_ROOT),
        ],
        "/usr/libexec/gnome-initial-setup",
    ),
    (
        "hosts-name",
        &[
            ("/etc/nsswitch.conf", "hosts: files dns\n"),
            ("/etc/hosts", "127.0.0.1 localhost\n127.0.1.1 golden.example golden\n"),
            ("/etc/hostname", "golden\n"),
        ],
        "/etc/hosts:2",
    ),
    ("host-name", &[("/etc/hostname", "golden\n")], "/etc/hostname"),
    (
        "dbus-machine-id",
        &[("/var/lib/dbus/machine-id", "0123456789abcdef0123456789abcdef\n")],
        "/var/lib/dbus/machine-id",
    ),
    ("machine-id", &[("/etc/machine-id", "0123456789abcdef0123456789abcdef\n")], "/etc/machine-id"),
    (
        "ssh-host-keys",
        &[("/etc/ssh/ssh_host_rsa_key", ""), ("/etc/ssh/sshd_config", "")],
        "/etc/ssh/ssh_host_rsa_key",
    ),
    (
        "ifupdown",
        &[("/etc/network/interfaces", "auto lo\nallow-hotplug eth0\niface eth0 inet dhcp\n")],
        "/etc/network/interfaces:2",
    ),
    (
        "network-profiles",
        &[("/etc/netplan/50-cloud-init.yaml", "network:\n  version: 2\n")],
        "/etc/netplan/50-cloud-init.yaml",
    ),
];

/// What comes beside it in these systems, as it is there.
const BESIDE: [(&str, &str); 2] = [("hosts-name", "host-name"), ("network-bridge", "ifupdown")];

#[test]
fn each_check_finds_what_it_is_for_where_it_is() {
    for check in CHECKS {
        let owned: Vec<(String, String)>;
        let (look, place) = match check.how {
            checks::How::Starts(units, _) if !HURT.iter().any(|(id, ..)| *id == check.id) => {
                let unit = units[0];
                owned = vec![
                    (format!("/usr/lib/systemd/system/{unit}"), String::new()),
                    (format!("/etc/systemd/system/x.target.wants/{unit}"), String::new()),
                ];
                let files: Vec<(&str, &str)> =
                    owned.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
                (seen(&files), "")
            }
            _ => {
                let hurt = HURT.iter().find(|(id, ..)| *id == check.id);
                let (_, files, place) =
                    hurt.unwrap_or_else(|| panic!("no system for {}", check.id));
                (seen(files), *place)
            }
        };
        let beside = BESIDE.iter().find(|(id, _)| *id == check.id).map(|(_, other)| *other);
        let expected: Vec<&str> = [check.id].into_iter().chain(beside).collect();
        assert_eq!(ids(&look), expected, "{look:?}");
        let harm = &look.harms[0];
        let line = harm.line.map(|line| format!(":{line}")).unwrap_or_default();
        assert_eq!(format!("{}{line}", harm.path.clone().unwrap_or_default()), place);
        assert_eq!(harm.severity, check.severity);
        assert!(!harm.fix.is_empty() && !harm.effect.is_empty(), "{harm:?}");
        assert!(look.not_checked.is_empty(), "{look:?}");
    }
    assert!(CHECKS.len() >= 20);
}

/// What stock systems have that is no harm, beside what they have that is one.
#[test]
fn stock_systems_raise_no_false_alarm() {
    let debian: Files = &[
        (
            "/etc/fstab",
            "# comment\nUUID=1111 / ext4 errors=remount-ro 0 1\nUUID=2222 /boot ext4 defaults 0 2\n\
                        /dev/sr0 /media/cdrom0 udf,iso9660 user,noauto 0 0\ntmpfs /tmp tmpfs defaults 0 0\n\
                        nas:/home /home nfs defaults 0 0\nLABEL=boot /b ext4 defaults 0 0\n/srv/a /srv/b none bind 0 0\n\
                        UUID=9999 /data ext4 nofail 0 0\n",
        ),
        (
            "/etc/nftables.conf",
            "flush ruleset\ntable inet filter {\n chain input {\n  type filter hook input priority filter;\n }\n}\n",
        ),
        ("/lib/systemd/system/nftables.service", ""),
        ("/lib/systemd/system/apt-daily.timer", ""),
        (
            "/etc/systemd/system/timers.target.wants/apt-daily.timer",
            "-> /lib/systemd/system/apt-daily.timer",
        ),
        ("/lib/systemd/system/apt-daily-upgrade.timer", ""),
        (
            "/etc/systemd/system/timers.target.wants/apt-daily-upgrade.timer",
            "-> /lib/systemd/system/apt-daily-upgrade.timer",
        ),
        ("/etc/apt/apt.conf.d/01autoremove", "APT\n{\n  NeverAutoRemove\n  {\n  };\n};\n"),
        ("/lib/systemd/system/sleep.target", ""),
        ("/lib/systemd/system/suspend.target", ""),
        (
            "/etc/network/interfaces",
            "source /etc/network/interfaces.d/*\nauto lo\niface lo inet loopback\n",
        ),
        (
            "/etc/passwd",
            "root:x:0:0:root:/root:/bin/bash\nanna:x:1000:1000::/home/anna:/bin/bash\n",
        ),
        ("/etc/shadow", "root:!:1::::::\nanna:$y$hash:1::::::\n"),
        ("/etc/nsswitch.conf", "passwd: files systemd\nhosts: files dns\n"),
        ("/etc/hosts", "127.0.0.1 localhost\n"),
        ("/etc/hostname", "localhost\n"),
        (
            "/etc/X11/xorg.conf.d/10-keyboard.conf",
            "Section \"InputClass\"\n Driver \"libinput\"\nEndSection\n",
        ),
        ("/usr/lib/systemd/system/man-db.timer", ""),
        ("/etc/systemd/system/timers.target.wants/man-db.timer", ""),
        ("/etc/systemd/system/man-db.timer", "-> /dev/null"),
        ("/etc/crypttab", "# <target name> <source device> <key file> <options>\n"),
        ("/etc/machine-id", "uninitialized\n"),
    ];
    let look = seen(debian);
    assert_eq!(ids(&look), ["host-name"], "{look:?}");
    assert_eq!(look.hurts().count(), 0);
}

fn fixed(files: &[(&str, &str)], choice: &FixChoice) -> Overlay {
    let planted = planted(files);
    let tree = || Tree::new(&planted);
    let look = look_at(tree(), DiskNames::of(&ON_DISK)).unwrap();
    let overlay = look.overlay_of(&tree(), choice).unwrap();
    overlay.to_file().unwrap();
    overlay
}

#[test]
fn a_password_that_all_users_of_a_pc_may_read_does_not_get_into_initrds() {
    let fstab = "UUID=3333 none swap sw 0 0\n//srv/x /mnt cifs username=u,password=TOP 0 0\n";
    let overlay = fixed(&[("/etc/fstab", fstab)], &FixChoice::default());
    assert!(overlay.entries.is_empty(), "{overlay:?}");
}

#[test]
fn what_is_laid_over_a_file_changes_its_lines_and_no_others() {
    let fstab = "UUID=1111 / ext4 defaults 0 1\nUUID=8888 /boot/efi vfat defaults 0 1\n\nUUID=3333 none swap sw 0 0";
    let files = [("/etc/fstab", fstab)];
    let overlay = fixed(&files, &FixChoice::default());
    let [laid] = &overlay.entries[..] else { panic!("{overlay:?}") };
    assert_eq!(
        (laid.path.as_str(), laid.about.as_str()),
        ("/etc/fstab", "fstab-mount, fstab-swap")
    );
    assert_eq!(laid.only_if, OnlyIf::Content(initcfg::content_digest(fstab.as_bytes())));
    let LaidWhat::File { content, mode: None, owner: None } = &laid.what else {
        panic!("{laid:?}")
    };
    let expected = "UUID=1111 / ext4 defaults 0 1\n# Bootlace (fstab-mount): UUID=8888 /boot/efi vfat defaults 0 1\n\n\
                    # Bootlace (fstab-swap): UUID=3333 none swap sw 0 0";
    assert_eq!(String::from_utf8_lossy(content), expected);
    // What is fixed hurts no more.
    assert_eq!(ids(&seen(&[("/etc/fstab", expected)])), [""; 0]);

    let only =
        |id: &str| FixChoice { only: BTreeSet::from([id.to_owned()]), ..FixChoice::default() };
    let except =
        |id: &str| FixChoice { except: BTreeSet::from([id.to_owned()]), ..FixChoice::default() };
    assert_eq!(fixed(&files, &only("fstab-swap")), fixed(&files, &except("fstab-mount")));
    assert_eq!(fixed(&files, &only("fstab-swap")).entries[0].about, "fstab-swap");
    assert_eq!(fixed(&files, &only("cloud-init")).entries, []);
    assert_eq!(only("no-such-check").unknown(), Some("no-such-check"));
    assert_eq!(only("fstab-swap").unknown(), None);
}

#[test]
fn rules_come_behind_the_head_of_their_chain() {
    let (_, files, _) = HURT.iter().find(|(id, ..)| *id == "firewall-nftables").unwrap();
    let overlay = fixed(files, &FixChoice::default());
    let LaidWhat::File { content, .. } = &overlay.entries[0].what else { panic!("{overlay:?}") };
    let text = String::from_utf8_lossy(content).into_owned();
    assert!(text.contains("policy drop;\nct state established,related accept\niif lo"), "{text}");
    let mut after: Vec<(&str, &str)> = files.to_vec();
    after.last_mut().unwrap().1 = &text;
    assert_eq!(ids(&seen(&after)), [""; 0]);
}

#[test]
fn units_are_masked_unless_the_administrator_has_made_them() {
    let unit = ("/usr/lib/systemd/system/man-db.timer", "");
    let wants = ("/etc/systemd/system/timers.target.wants/man-db.timer", "");
    let overlay = fixed(&[unit, wants], &FixChoice::default());
    let laid = &overlay.entries[0];
    assert_eq!(laid.path.as_str(), "/etc/systemd/system/man-db.timer");
    assert_eq!(laid.only_if, OnlyIf::Missing);
    assert_eq!(laid.what, LaidWhat::Link { target: "/dev/null".to_owned() });
    let own = ("/etc/systemd/system/man-db.timer", "[Timer]\n");
    let look = seen(&[unit, wants, own]);
    assert_eq!((ids(&look), look.harms[0].can_be_fixed), (vec!["manual-index"], false));
    assert!(look.harms[0].fix.contains("systemctl disable"), "{look:?}");
}

#[test]
fn a_file_that_is_a_link_is_changed_where_it_is() {
    let files = [
        ("/etc/fstab", "-> /usr/share/fstab"),
        ("/usr/share/fstab", "UUID=8888 /x ext4 defaults 0 0\n"),
    ];
    let overlay = fixed(&files, &FixChoice::default());
    assert_eq!(overlay.entries[0].path.as_str(), "/usr/share/fstab");
    // What is in no root's folder can't be laid over it.
    let running =
        [("/etc/fstab", "-> /run/fstab"), ("/run/fstab", "UUID=8888 /x ext4 defaults 0 0\n")];
    assert!(!seen(&running).harms[0].can_be_fixed);
}

#[test]
fn a_file_that_is_no_configuration_ends_one_check_only() {
    let long = "x".repeat(300 << 10);
    let look = seen(&[("/etc/hostname", &long), ("/.autorelabel", "")]);
    assert_eq!(ids(&look), ["selinux-relabel"]);
    assert!(look.not_checked.iter().any(|(check, _)| check == "host-name"), "{look:?}");
    let folder = seen(&[("/etc/fstab/x", ""), ("/etc/systemd", "")]);
    assert_eq!((ids(&folder), folder.not_checked.len()), (vec![], 0));
}

#[test]
fn a_hostile_file_is_told_in_short_and_without_control_characters() {
    let line = format!("UUID={} /\u{1b}[2Jx ext4 defaults 0 0\n", "9".repeat(1000));
    let look = seen(&[("/etc/fstab", &line.repeat(100))]);
    assert_eq!(look.harms.len(), FOUND_MAX);
    for harm in &look.harms {
        let text = format!("{}{}", harm.what, harm.fix);
        assert!(text.len() < 1000 && !text.contains(char::is_control), "{harm:?}");
    }
}

#[test]
fn the_page_lists_all_checks() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/how-to/what-hurts-in-an-image.md");
    let page = std::fs::read_to_string(page).unwrap();
    let listed: Vec<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` | ").map(|(id, _)| id))
        .collect();
    let all: Vec<&str> = CHECKS.iter().map(|check| check.id).collect();
    assert_eq!(listed, all);
    for check in CHECKS {
        let row =
            page.lines().find(|line| line.starts_with(&format!("| `{}` | ", check.id))).unwrap();
        let word = match check.dealt_with {
            Some(_) => "dealt with".to_owned(),
            None => check.severity.to_string(),
        };
        assert!(row.starts_with(&format!("| `{}` | {word} | ", check.id)), "{row}");
    }
}

proptest! {
    #[test]
    fn no_file_panics(
        text in "[a-zA-Z0-9=/ :,;#\"{}\\\\\\n*-]{0,300}",
        wild: String,
        at in 0..8usize,
    ) {
        let places = [
            "/etc/fstab", "/etc/crypttab", "/etc/network/interfaces", "/etc/passwd", "/etc/hosts",
            "/etc/X11/xorg.conf", "/etc/apt/apt.conf.d/x", "/etc/udev/rules.d/70-persistent-net.rules",
        ];
        for text in [&text, &wild] {
            let files = [(places[at], text.as_str()), ("/etc/shadow", text.as_str()), ("/etc/hostname", "x")];
            let overlay = fixed(&files, &FixChoice::default());
            prop_assert!(overlay.entries.len() <= 4);
        }
    }
}
