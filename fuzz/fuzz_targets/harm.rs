//! Files of an image in which checks look for what hurts: fstab, rules of firewalls, accounts.
#![no_main]

/// Files that are read, and some that make others be read.
const PATHS: [&str; 24] = [
    "/etc/fstab",
    "/etc/crypttab",
    "/etc/nftables.conf",
    "/etc/systemd/system/x.wants/nftables.service",
    "/lib/systemd/system/nftables.service",
    "/etc/iptables/rules.v4",
    "/etc/systemd/system/x.wants/netfilter-persistent.service",
    "/lib/systemd/system/netfilter-persistent.service",
    "/etc/ufw/ufw.conf",
    "/etc/default/ufw",
    "/etc/network/interfaces",
    "/etc/apt/apt.conf.d/20auto-upgrades",
    "/etc/passwd",
    "/etc/shadow",
    "/etc/hosts",
    "/etc/hostname",
    "/etc/nsswitch.conf",
    "/etc/X11/xorg.conf",
    "/etc/udev/rules.d/70-persistent-net.rules",
    "/etc/wireguard/a.conf",
    "/etc/systemd/system/x.wants/wg-quick@a.service",
    "/lib/systemd/system/wg-quick@.service",
    "/etc/systemd/journald.conf",
    "/etc/machine-id",
];

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // A byte says which file, and the rest up to a zero what is in it.
    let files = bytes.split(|byte| *byte == 0).filter_map(|part| {
        let (which, content) = part.split_first()?;
        Some((PATHS[usize::from(*which) % PATHS.len()].to_owned(), content.to_vec()))
    });
    if let Ok((look, overlay)) = images::look_at_files(files.collect()) {
        assert!(look.harms.iter().all(|harm| !harm.what.contains(char::is_control)));
        overlay.to_file().unwrap();
    }
});
