//! Leases of another DHCP server, whose clients keep their addresses here.

use super::known::{Known, Verdict};
use crate::error::{Error, LeaseError};
use crate::live::LeaseNews;
use crate::people::Admin;
use crate::store::{FieldChange, Transaction};
use model::{FindingKind, Lease, Subject};
use std::net::Ipv4Addr;
use wire::Mac;

/// Leases that are taken at once: as many as the largest pools have addresses.
const LEASES_MAX: usize = 65_536;

/// Characters of a host name that are kept, as of one that a client sends.
const NAME_MAX: usize = 63;

/// A lease of another server.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportedLease {
    /// Line of the file that it is from, if it is from one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// Who has the address.
    pub mac: Mac,
    /// The address.
    pub address: Ipv4Addr,
    /// When the lease ends, seconds since 1970; `None`: never.
    pub ends_unix: Option<u64>,
    /// What the client calls itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_name: Option<String>,
}

/// A lease that is not taken.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LeftOutLease {
    /// Line of the file that it is from.
    pub line: Option<u64>,
    /// The address.
    pub address: Ipv4Addr,
    /// Who has it there.
    pub mac: Mac,
    /// Why it is not.
    pub why: String,
}

/// What has become of leases of another server.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ImportedLeases {
    /// So many are taken, or would be.
    pub n_taken: usize,
    /// So many clients have that address here, for as long.
    pub n_known: usize,
    /// So many have ended.
    pub n_ended: usize,
    /// Those that are not taken.
    pub left_out: Vec<LeftOutLease>,
}

impl Admin {
    /// Takes leases that another DHCP server has given: all of those that can be, or none if they can't be stored.
    /// `is_trial` only says which.
    ///
    /// # Errors
    /// Others give addresses here, there are too many, or the database can't be written.
    pub async fn import_leases(
        &self,
        leases: Vec<ImportedLease>,
        is_trial: bool,
    ) -> Result<ImportedLeases, Error> {
        let (n, max) = (leases.len(), LEASES_MAX);
        if n > max {
            return Err(LeaseError::TooMany { n, max }.into());
        }
        let service = self.service();
        let networks = service.leased_networks()?.to_vec();
        let (actor, now) = (self.shared_actor(), self.now());
        let who = (service.machines_in_use(), self.site());
        if is_trial {
            let reading = service.database().read(move |tables| {
                let known = Known::read(tables, networks, who, now.unix())?;
                Ok(decide(known, leases, now.unix()).0)
            });
            return reading.await;
        }
        let _turn = service.lease_desk().turn().acquire().await.map_err(|_| Error::Stopping)?;
        let importing = service.database().write(move |tables: &Transaction<'_>| {
            let known = Known::read(tables, networks, who, now.unix())?;
            let (told, taken) = decide(known, leases, now.unix());
            if !taken.is_empty() {
                tables.put_leases(&taken)?;
                let taken = Some(taken.len().to_string());
                let change = FieldChange { field: "leases".into(), old: None, new: taken };
                tables.put_audit(&actor.does(
                    "lease.import",
                    "leases",
                    vec![change],
                    now.unix_ms,
                ))?;
            }
            Ok((told, taken))
        });
        let (told, taken) = importing.await?;
        let ImportedLeases { n_taken, n_known, n_ended, ref left_out } = told;
        tracing::info!(n_taken, n_known, n_ended, n_left_out = left_out.len(), "leases imported");
        let clock = service.lease_clock();
        for (lease, _) in &taken {
            service.lease_desk().forget_heard(lease.address, 0);
            service.resolved(FindingKind::AddressInUse, &Subject::Address(lease.address));
        }
        let taken = taken.iter().map(|(lease, _)| clock.counted(lease)).collect();
        service.lease_desk().tell(LeaseNews::Taken(taken)).await;
        Ok(told)
    }
}

/// What becomes of each; and those that are taken, with how long each lasts.
fn decide(
    mut known: Known,
    leases: Vec<ImportedLease>,
    now_unix: u64,
) -> (ImportedLeases, Vec<(Lease, u32)>) {
    let (mut told, mut taken) = (ImportedLeases::default(), Vec::new());
    for ImportedLease { line, mac, address, ends_unix, host_name } in leases {
        match known.verdict(mac, address, ends_unix) {
            Verdict::Take => {
                let seconds = ends_unix.map_or(u64::MAX, |ends| ends.saturating_sub(now_unix));
                // What has no end lasts as long as can be stored.
                let seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
                let expires_unix = now_unix.saturating_add(seconds.into());
                let host_name = host_name.map(|name| clean(&name)).filter(|name| !name.is_empty());
                let lease = Lease { mac, address, expires_unix, host_name };
                known.note(&lease);
                taken.push((lease, seconds));
                told.n_taken += 1;
            }
            Verdict::Known => told.n_known += 1,
            Verdict::Ended => told.n_ended += 1,
            Verdict::LeftOut(why) => told.left_out.push(LeftOutLease { line, address, mac, why }),
        }
    }
    (told, taken)
}

fn clean(name: &str) -> String {
    name.chars().take(NAME_MAX).map(|it| if it.is_ascii_graphic() { it } else { '?' }).collect()
}
