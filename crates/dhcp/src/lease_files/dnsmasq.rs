//! `dnsmasq.leases`: end, MAC address, IP address, name and client identifier on a line (`lease.c` of dnsmasq).

use super::{BadLeaseFile, Entries, address, leased, number, shown};
use alloc::format;
use alloc::vec::Vec;
use core::net::Ipv6Addr;

/// In 2001: no lease has ended before.
const CLOCK_FROM: u64 = 1_000_000_000;

/// Before the leases of DHCPv6 stands the server's own identifier.
const V6: &str = "duid";

pub(super) fn entries(text: &str) -> Result<Entries, BadLeaseFile> {
    let mut entries = Entries::default();
    for (index, line) in text.lines().enumerate() {
        let number_of_line = index + 1;
        let words: Vec<&str> = line.split_whitespace().collect();
        let (ends, mac, ip, name) = match words.as_slice() {
            [] => continue,
            [V6, ..] => {
                entries.leave_out(
                    number_of_line,
                    "leases of DHCPv6 follow, which Bootlace gives none",
                );
                break;
            }
            [ends, mac, ip, name, ..] => (*ends, *mac, *ip, *name),
            words => {
                let n = words.len();
                let what = format!(
                    "a lease of dnsmasq is five words (end, MAC address, IP address, name, client identifier), and here \
                     are {n}: correct the line, or take it out"
                );
                return Err(BadLeaseFile::at(number_of_line, what));
            }
        };
        let ends = number(ends, "time in seconds since 1970", number_of_line)?;
        if ip.parse::<Ipv6Addr>().is_ok() {
            entries.leave_out(number_of_line, format!("{ip}: a lease of DHCPv6"));
            continue;
        }
        let ip = address(ip, number_of_line)?;
        // What is no Ethernet has its type before the address: `06-00:…`.
        let entry = leased(mac, Some(ends).filter(|ends| *ends > 0), name);
        let entry = entry.map_err(|why| {
            BadLeaseFile::at(
                number_of_line,
                format!("{} {why}: correct it, or take the line out", shown(mac)),
            )
        })?;
        if (1..CLOCK_FROM).contains(&ends) {
            entries.leave_out(
                number_of_line,
                format!(
                    "{ip}: its end is {ends} s after 1970; this dnsmasq has no clock (HAVE_BROKEN_RTC) and writes how long leases last: put the time of their end there"
                ),
            );
            continue;
        }
        entries.put(number_of_line, ip, entry);
    }
    Ok(entries)
}
