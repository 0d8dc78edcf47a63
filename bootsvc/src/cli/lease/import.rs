//! `bootlace lease import`

use super::super::output::{note, say};
use super::super::status::count;
use crate::paths::Paths;
use crate::site::Site;
use anyhow::{Context as _, bail};
use dhcp::{BadLeaseFile, LeaseFile, LeaseFormat};
use serde_json::json;
use service::{ImportedLease, ImportedLeases};
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Longest file that is read: dhcpd's log of the largest network, which it begins anew each hour.
const FILE_BYTES_MAX: u64 = 256 << 20;

pub(super) fn import(
    paths: &Paths,
    path: &Path,
    format: Option<LeaseFormat>,
    is_trial: bool,
    json: bool,
) -> anyhow::Result<()> {
    // Before this process perhaps becomes a user who may not.
    let file = read(path)?;
    let in_file = || format!("can't import {}", path.display());
    let format = format.or_else(|| LeaseFormat::of(&file));
    let format = format.ok_or(BadLeaseFile::Unknown).with_context(in_file)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let LeaseFile { leases, n_ended, left_out } =
        LeaseFile::parse(&file, format, now).with_context(in_file)?;
    let leases: Vec<ImportedLease> = leases
        .into_iter()
        .map(|lease| ImportedLease {
            line: u64::try_from(lease.line).ok(),
            mac: lease.mac,
            address: lease.address,
            ends_unix: lease.ends_unix,
            host_name: lease.host_name,
        })
        .collect();
    let site = Site::open(paths)?;
    let asked = json!({ "leases": leases, "dry_run": is_trial });
    let mut told: ImportedLeases = site.work("/api/v1/leases", &asked)?;
    told.n_ended += n_ended;
    let mut lines: Vec<(u64, String)> = told
        .left_out
        .iter()
        .map(|it| (it.line.unwrap_or_default(), format!("{} ({}): {}", it.address, it.mac, it.why)))
        .chain(left_out.into_iter().map(|it| (u64::try_from(it.line).unwrap_or(u64::MAX), it.why)))
        .collect();
    lines.sort();
    if json {
        let left_out: Vec<_> =
            lines.iter().map(|(line, why)| json!({ "line": line, "why": why })).collect();
        let ImportedLeases { n_taken, n_known, n_ended, .. } = told;
        say(serde_json::to_string_pretty(&json!({
            "n_taken": n_taken, "n_known": n_known, "n_ended": n_ended, "left_out": left_out, "dry_run": is_trial,
        }))?);
        return Ok(());
    }
    for (line, why) in &lines {
        note(format_args!("line {line}: {why}"));
    }
    say(said(&told, format, lines.len(), is_trial));
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let cant = || format!("can't read {}", path.display());
    let mut file = Vec::new();
    File::open(path)
        .and_then(|opened| opened.take(FILE_BYTES_MAX + 1).read_to_end(&mut file))
        .with_context(cant)?;
    if file.len() as u64 > FILE_BYTES_MAX {
        bail!(
            "{} is longer than {} MiB, and so no file of leases",
            path.display(),
            FILE_BYTES_MAX >> 20
        );
    }
    Ok(file)
}

/// `34 leases of dnsmasq taken; 2 were known, 12 had ended, 3 are left out`.
fn said(told: &ImportedLeases, format: LeaseFormat, n_left_out: usize, is_trial: bool) -> String {
    let n = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    let leases = count(n(told.n_taken), "lease");
    let what = if is_trial { "would be taken" } else { "taken" };
    let mut said = format!("{leases} of {} {what}", format.title());
    let others =
        [(told.n_known, "known here already"), (told.n_ended, "ended"), (n_left_out, "left out")];
    let others = others.into_iter().filter(|(n, _)| *n > 0);
    let others: Vec<String> = others.map(|(n, what)| format!("{n} {what}")).collect();
    if !others.is_empty() {
        said = format!("{said}; {}", others.join(", "));
    }
    if told.n_taken > 0 && !is_trial {
        said.push_str("\nTheir clients keep these addresses when they ask the next time.");
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_is_said() {
        let told = ImportedLeases { n_taken: 1, n_ended: 2, ..ImportedLeases::default() };
        let trial = said(&told, LeaseFormat::Isc, 3, true);
        assert_eq!(trial, "1 lease of ISC dhcpd would be taken; 2 ended, 3 left out");
        let done = said(&told, LeaseFormat::Kea, 0, false);
        assert!(done.starts_with("1 lease of Kea taken; 2 ended\nTheir clients keep"), "{done}");
    }
}
