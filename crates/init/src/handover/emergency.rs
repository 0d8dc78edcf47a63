//! A system that systemd has stopped in emergency or rescue mode: nothing in it tells the boot server, so it would count
//! as starting for ever.

use std::fs;
use std::process::{Command, Stdio};

/// Services that systemd starts in these modes, and how the modes are called.
const MODES: [(&str, &str); 2] = [("emergency", "emergency mode"), ("rescue", "rescue mode")];

/// Where systems have it; nothing is looked up in a PATH here.
const SYSTEMCTL: [&str; 2] = ["/usr/bin/systemctl", "/bin/systemctl"];

/// What is missing and what has failed are named up to this number each.
const NAMED_MAX: usize = 4;

/// Files below `/run` that have systemd tell what happened, by the program `binary`.
pub(super) fn drop_ins(binary: &str) -> impl Iterator<Item = (String, String)> + use<'_> {
    MODES.into_iter().map(move |(service, _)| {
        let path = format!("/run/systemd/system/{service}.service.d/50-bootlace.conf");
        (path, format!("[Service]\nExecStartPre=-{binary} report-mode {service}\n"))
    })
}

/// What a person should know of a system in the mode whose service this is; `None`: it is no such service.
pub(crate) fn detail(service: &str) -> Option<String> {
    let (_, mode) = MODES.into_iter().find(|(name, _)| *name == service)?;
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let missing = not_mounted(&read("/etc/fstab"), &read("/proc/self/mounts"));
    Some(sentence(mode, &missing, &failed_units()))
}

fn sentence(mode: &str, missing: &[(String, String)], failed: &[String]) -> String {
    let mut why = Vec::new();
    let shown = |n: usize| if n > NAMED_MAX { " and more" } else { "" };
    if !missing.is_empty() {
        let named = missing.iter().take(NAMED_MAX).map(|(what, at)| format!("{what} at {at}"));
        let named = named.collect::<Vec<_>>().join(", ");
        let more = shown(missing.len());
        why.push(format!("its /etc/fstab wants {named}{more}, and nothing is mounted there"));
    }
    if !failed.is_empty() {
        let named = failed.iter().take(NAMED_MAX).cloned().collect::<Vec<_>>().join(", ");
        why.push(format!("failed: {named}{}", shown(failed.len())));
    }
    match why.is_empty() {
        true => format!("its system is in {mode}; its screen says more"),
        false => format!("its system is in {mode}, {}", why.join("; ")),
    }
}

/// What must be mounted by fstab(5) and is not: the file system, and where.
fn not_mounted(fstab: &str, mounts: &str) -> Vec<(String, String)> {
    let mounted = |place: &str| mounts.lines().any(|line| line.split(' ').nth(1) == Some(place));
    let entry = |line: &str| {
        let mut fields = line.split_whitespace();
        let what = fields.next().filter(|what| !what.starts_with('#'))?;
        let (place, kind) = (fields.next()?, fields.next()?);
        let options = fields.next().unwrap_or_default();
        let is_free = options.split(',').any(|it| matches!(it, "noauto" | "nofail"));
        let place = if place == "/" { place } else { place.trim_end_matches('/') };
        let is_needed = place.starts_with('/') && kind != "swap" && !is_free;
        (is_needed && !mounted(place)).then(|| (what.to_owned(), place.to_owned()))
    };
    fstab.lines().filter_map(entry).collect()
}

/// Units of systemd that have failed.
fn failed_units() -> Vec<String> {
    let list = |program| {
        let mut command = Command::new(program);
        command.args(["list-units", "--failed", "--plain", "--no-legend", "--no-pager"]);
        command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()
    };
    let output = SYSTEMCTL.into_iter().find_map(list).map(|output| output.stdout);
    let text = String::from_utf8_lossy(output.as_deref().unwrap_or_default()).into_owned();
    text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str =
        "/dev/nbd0p1 / ext4 rw 0 0\nproc /proc proc rw 0 0\n/dev/sda1 /data ext4 rw 0 0\n";

    #[test]
    fn what_fstab_wants_and_is_not_there_is_named() {
        let fstab = "# a comment\n\nUUID=1 / ext4 defaults 0 1\n/dev/sda1 /data ext4 defaults 0 2\n\
                     UUID=2\t/srv/\txfs\tdefaults\t0 2\nUUID=3 none swap sw 0 0\nUUID=4 /a ext4 noauto 0 0\n\
                     UUID=5 /b ext4 defaults,nofail 0 0\nUUID=6 swap swap\nUUID=7\n";
        let missing = not_mounted(fstab, MOUNTS);
        assert_eq!(missing, [("UUID=2".to_owned(), "/srv".to_owned())]);
        for end in 0..fstab.len() {
            let _ = not_mounted(&fstab[..end], &MOUNTS[..end.min(MOUNTS.len())]);
        }
    }

    #[test]
    fn a_person_reads_why_in_one_sentence() {
        assert_eq!(
            sentence("emergency mode", &[], &[]),
            "its system is in emergency mode; its screen says more"
        );
        let missing = vec![("UUID=2".to_owned(), "/srv".to_owned()); 6];
        let text = sentence("emergency mode", &missing, &["home.mount".to_owned()]);
        assert!(
            text.starts_with(
                "its system is in emergency mode, its /etc/fstab wants UUID=2 at /srv,"
            )
        );
        assert!(text.ends_with(
            "UUID=2 at /srv and more, and nothing is mounted there; failed: home.mount"
        ));
    }

    #[test]
    fn both_modes_have_their_drop_in_and_their_word() {
        for (path, content) in drop_ins("/run/init") {
            let word = content.trim_end().rsplit(' ').next().unwrap();
            assert!(path.contains(&format!("/{word}.service.d/")), "{path}: {content}");
            assert!(detail(word).is_some());
        }
        assert_eq!(detail("up"), None);
    }
}
