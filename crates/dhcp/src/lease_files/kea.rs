//! `kea-leases4.csv`: a log with a line for each change, below a line with the names of its columns. The last line of an
//! address counts.

use super::{BadLeaseFile, Entries, Entry, address, leased, number, shown};
use alloc::borrow::ToOwned as _;
use alloc::format;
use alloc::vec::Vec;

/// What Kea writes for a lease that never ends.
const NEVER: u64 = 0xffff_ffff;

/// What stands for a comma in a column.
const COMMA: &str = "&#x2c";

/// Where the columns are that matter.
struct Columns {
    n: usize,
    address: usize,
    hwaddr: usize,
    lifetime: usize,
    expire: usize,
    hostname: Option<usize>,
    state: Option<usize>,
}

impl Columns {
    fn of(header: &str, line: usize) -> Result<Self, BadLeaseFile> {
        let names: Vec<&str> = header.split(',').map(str::trim).collect();
        if names.contains(&"duid") {
            let what =
                "these are leases of DHCPv6, which Bootlace gives none: take kea-leases4.csv";
            return Err(BadLeaseFile::at(line, what));
        }
        let find = |name: &str| names.iter().position(|it| *it == name);
        let must = |name: &str| {
            find(name).ok_or_else(|| {
                let what = format!(
                    "there is no column {name:?}: the first line of Kea's file must name its columns"
                );
                BadLeaseFile::at(line, what)
            })
        };
        Ok(Self {
            n: names.len(),
            address: must("address")?,
            hwaddr: must("hwaddr")?,
            lifetime: must("valid_lifetime")?,
            expire: must("expire")?,
            hostname: find("hostname"),
            state: find("state"),
        })
    }
}

pub(super) fn entries(text: &str) -> Result<Entries, BadLeaseFile> {
    let mut entries = Entries::default();
    let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
    let mut lines = lines.filter(|(_, line)| !line.is_empty());
    let Some((line, header)) = lines.next() else { return Ok(entries) };
    let columns = Columns::of(header, line)?;
    for (line, row) in lines {
        // Several files, one behind the other.
        if row == header {
            continue;
        }
        let fields: Vec<&str> = row.split(',').collect();
        let field = |column: usize| {
            fields.get(column).copied().filter(|_| fields.len() >= columns.n).ok_or_else(|| {
                let what = format!(
                    "here are {} columns, and {} in the first line: the file is cut off, or was changed by hand",
                    fields.len(),
                    columns.n
                );
                BadLeaseFile::at(line, what)
            })
        };
        let of = address(field(columns.address)?, line)?;
        let lifetime = number(field(columns.lifetime)?, "number of seconds", line)?;
        let expire = number(field(columns.expire)?, "time in seconds since 1970", line)?;
        let state = columns.state.map(field).transpose()?.unwrap_or("0");
        let entry = match state {
            // A lease that was deleted lasts no time.
            _ if lifetime == 0 => Entry::Ended,
            "0" | "" => {
                let mac = field(columns.hwaddr)?;
                let name = columns.hostname.map(field).transpose()?.unwrap_or_default();
                let name = name.replace(COMMA, ",");
                let ends = Some(expire).filter(|_| lifetime != NEVER);
                leased(mac, ends, &name).map_err(|why| {
                    let what = format!("{} {why}: correct it, or take the line out", shown(mac));
                    BadLeaseFile::at(line, what)
                })?
            }
            "1" => Entry::None("Kea was told that somebody uses it without a lease".to_owned()),
            "2" | "3" => Entry::Ended,
            other => Entry::None(format!("Kea's state {} is not known here", shown(other))),
        };
        entries.put(line, of, entry);
    }
    Ok(entries)
}
