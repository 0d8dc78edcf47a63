//! What readers see: the state as of the last commit, immutable.
//!
//! Maps share what did not change with those of the former view: a commit costs what it changes, not what is
//! there.

use super::hardware::Hardware;
use super::orders::PowerState;
use super::proofs::Proof;
use super::sessions::{SecretHash, Session};
use super::tokens::Token;
use super::transaction::{Part, Transaction};
use super::users::User;
use model::{
    Boot, BootChoice, BootId, BootIdentity, DiskMeant, DiskOwner, Lease, Machine, MachineIdentity,
    MachineName, Seen, Site, UserName,
};
use rpds::HashTrieMapSync;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::Hash;
use std::net::Ipv4Addr;
use std::sync::Arc;
use wire::Mac;

/// The state of the site. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct View {
    pub(crate) site: Arc<Site>,
    /// The last boot of each PC, from whichever of its NICs, by each of them.
    pub(crate) boots: HashTrieMapSync<Mac, LastBoot>,
    /// The last boot of each PC that has shown that it is the machine's, if another one began since; by each of its NICs.
    pub(crate) proven: HashTrieMapSync<Mac, LastBoot>,
    /// Boots of each machine before its last one that nobody has proven yet, and that may still be on their way to a proof:
    /// they began after the last proven one. By each of its NICs.
    open: HashTrieMapSync<Mac, Arc<[LastBoot]>>,
    /// What each machine is made of, as it was when it booted from that NIC.
    pub(crate) hardware: HashTrieMapSync<Mac, Arc<Hardware>>,
    /// Passwords of the rescue shells that machines stop in at their next boot, by name.
    pub(crate) rescues: Arc<HashMap<String, String>>,
    /// What tells each machine from others of its name.
    identities: Arc<HashMap<MachineName, MachineIdentity>>,
    /// Boots that throw their machine's disk away and have not got it yet.
    pub(crate) disk_resets: Arc<HashSet<BootId>>,
    /// Machines of which the storage server has had a disk of their own.
    pub(crate) kept_disks: Arc<HashSet<MachineName>>,
    /// Machines that were removed, and of which the storage server may still have a disk; and which, if that is known.
    pub(crate) disk_deletions: Arc<BTreeMap<MachineName, DiskMeant>>,
    /// PCs that asked for a loader, machines too.
    pub(crate) seen: HashTrieMapSync<Mac, Arc<Seen>>,
    /// Who may use pages and API.
    pub(crate) people: Arc<People>,
    leases: HashTrieMapSync<Mac, Arc<Lease>>,
    owners: HashTrieMapSync<Ipv4Addr, Mac>,
    /// In whose names addresses were declined that nobody had since.
    declined: Arc<HashMap<Ipv4Addr, Mac>>,
    /// Addresses that belong to one NIC for ever, beside those in the configuration.
    pub(crate) fixed: Arc<BTreeMap<Mac, Ipv4Addr>>,
    /// NICs of machines with a boot of these that has an order which was not obeyed.
    ordered: HashTrieMapSync<Mac, ()>,
}

/// Accounts, and what lets somebody in.
#[derive(Clone, Debug, Default)]
pub(crate) struct People {
    pub(crate) users: BTreeMap<UserName, User>,
    pub(crate) sessions: HashMap<SecretHash, Session>,
    pub(crate) tokens: HashMap<SecretHash, Token>,
}

/// A boot of a NIC, with what only the boot server and the machine know of it.
#[derive(Clone, Debug)]
pub(crate) struct LastBoot {
    pub(crate) boot: Arc<Boot>,
    /// Tells it from other boots with its number; `None`: an earlier Bootlace has opened it.
    pub(crate) identity: Option<BootIdentity>,
    pub(crate) proof: Proof,
    /// What the machine was asked to do.
    pub(crate) order: Option<PowerState>,
    /// Password of the rescue shell that the boot stops in.
    pub(crate) rescue: Option<String>,
    /// What it starts, if the machine was to start something once.
    pub(crate) choice: Option<BootChoice>,
    /// In how many boots right before it a kernel was fetched and said nothing.
    pub(crate) n_wordless: u32,
    /// Its keeper has answered a question: from then on only answers are signs that it runs.
    pub(crate) answers: bool,
}

impl View {
    /// All leases, ended ones too.
    pub(crate) fn leases(&self) -> impl Iterator<Item = &Lease> {
        self.leases.values().map(|lease| &**lease)
    }

    /// The lease of a NIC, ended or not.
    pub(crate) fn lease(&self, mac: Mac) -> Option<&Lease> {
        self.leases.get(&mac).map(|lease| &**lease)
    }

    /// The NIC that has this address, or had it last.
    pub(crate) fn owner(&self, address: Ipv4Addr) -> Option<Mac> {
        self.owners.get(&address).or_else(|| self.declined.get(&address)).copied()
    }

    /// The boot from this NIC with this number, if it is one of those that matter: the machine's last one, its last
    /// proven one, or one in between that may still prove itself.
    pub(crate) fn boot(&self, mac: Mac, boot: BootId) -> Option<&LastBoot> {
        self.boots_of(mac).find(|known| known.boot.id == boot && known.boot.mac == mac)
    }

    /// The boots that matter of the PC with this NIC, the last first.
    pub(crate) fn boots_of(&self, mac: Mac) -> impl Iterator<Item = &LastBoot> {
        let open = self.open.get(&mac).into_iter().flat_map(|open| open.iter());
        self.boots.get(&mac).into_iter().chain(open).chain(self.proven.get(&mac))
    }

    /// NICs of machines with a boot that has an order which was not obeyed.
    pub(crate) fn ordered(&self) -> impl Iterator<Item = Mac> {
        self.ordered.keys().copied()
    }

    /// The machine as the owner of the disk that it keeps.
    pub(crate) fn as_owner(&self, machine: &Machine) -> Option<DiskOwner> {
        let &identity = self.identities.get(&machine.name)?;
        Some(DiskOwner { identity, macs: machine.macs().collect() })
    }

    fn strangers(&self) -> impl Iterator<Item = &Seen> {
        let seen = self.seen.values().map(|seen| &**seen);
        seen.filter(|seen| self.site.machine_by_mac(seen.mac).is_none())
    }

    /// How many PCs asked for a loader and are no machines.
    pub(crate) fn n_discovered(&self) -> usize {
        self.strangers().count()
    }

    /// PCs that asked for a loader and are no machines, the last first.
    pub(crate) fn discovered(&self) -> Vec<Seen> {
        let mut strangers: Vec<Seen> = self.strangers().cloned().collect();
        strangers.sort_by_key(|seen| (std::cmp::Reverse(seen.last_unix), seen.mac));
        strangers
    }

    /// Reads everything.
    pub(super) fn load(tables: &Transaction<'_>) -> rusqlite::Result<Self> {
        let mut view = Self::default();
        for part in [
            Part::Machines,
            Part::Images,
            Part::Rescues,
            Part::DiskResets,
            Part::KeptDisks,
            Part::DiskDeletions,
            Part::Declined,
            Part::Fixed,
            Part::Leases,
            Part::People,
        ] {
            view.load_part(tables, part)?;
        }
        for boot in tables.last_boots()? {
            view.put_boot(boot.boot.mac, Some(boot), None);
        }
        for earlier in tables.earlier_proven_boots()? {
            view.put_earlier(earlier.boot.mac, Some(earlier));
        }
        let site = Arc::clone(&view.site);
        for machine in &site.machines {
            view.load_part(tables, Part::Boot(machine.mac))?;
        }
        for seen in tables.all_seen()? {
            view.seen.insert_mut(seen.mac, Arc::new(seen));
        }
        for (mac, hardware) in tables.all_hardware()? {
            view.hardware.insert_mut(mac, Arc::new(hardware));
        }
        Ok(view)
    }

    /// Reads what a change has touched.
    pub(super) fn load_part(
        &mut self,
        tables: &Transaction<'_>,
        part: Part,
    ) -> rusqlite::Result<()> {
        match part {
            Part::Machines => {
                let machines = tables.machines()?;
                let (rooms, settings) = (tables.rooms()?, tables.site_settings()?);
                let site = Site::new(machines, self.site.images.clone());
                let site = site.with_states(self.site.states.clone()).with_rings(tables.rings()?);
                let site = site.with_disks(tables.site_disks()?);
                self.site = Arc::new(site.with_rooms(rooms, settings));
                self.identities = Arc::new(tables.machine_identities()?.into_iter().collect());
            }
            Part::Images => {
                let images = tables.image_versions()?;
                let (rooms, settings) = (self.site.rooms.clone(), self.site.settings.clone());
                let site = Site::new(self.site.machines.clone(), images);
                let site = site.with_states(tables.image_states()?).with_rings(tables.rings()?);
                let site = site.with_disks(self.site.disks.clone());
                self.site = Arc::new(site.with_rooms(rooms, settings));
            }
            Part::Disks => {
                let site = (*self.site).clone();
                self.site = Arc::new(site.with_disks(tables.site_disks()?));
            }
            Part::DiskResets => {
                self.disk_resets = Arc::new(tables.disk_resets()?.into_iter().collect());
            }
            Part::KeptDisks => {
                self.kept_disks = Arc::new(tables.kept_disks()?.into_iter().collect());
            }
            Part::DiskDeletions => {
                self.disk_deletions = Arc::new(tables.disk_deletions()?.into_iter().collect());
            }
            Part::Declined => self.declined = Arc::new(tables.declined_by()?.into_iter().collect()),
            Part::Fixed => self.fixed = Arc::new(tables.fixed_addresses()?.into_iter().collect()),
            Part::Rescues => self.rescues = Arc::new(tables.rescues_wanted()?),
            Part::People => {
                let users = tables.users()?.into_iter().map(|user| (user.name.clone(), user));
                self.people = Arc::new(People {
                    users: users.collect(),
                    sessions: tables.sessions()?.into_iter().collect(),
                    tokens: tables.tokens()?.into_iter().collect(),
                });
            }
            Part::Leases => {
                (self.leases, self.owners) = Default::default();
                for lease in tables.leases()? {
                    self.put_lease(lease.mac, Some(lease));
                }
            }
            Part::Lease(mac) => self.put_lease(mac, tables.lease(mac)?),
            Part::Boot(mac) => {
                // Machines are read before boots.
                let macs = self.site.macs_beside(mac);
                let last = tables.last_boot_with_secrets(&macs)?;
                let earlier = tables.earlier_proven_boot(&macs)?;
                let open = tables.open_boots(&macs)?;
                for mac in macs {
                    self.put_boot(mac, last.clone(), earlier.clone());
                    self.put_open(mac, open.clone());
                }
            }
            Part::Seen(mac) => put(&mut self.seen, mac, tables.seen(mac)?.map(Arc::new)),
            Part::Everything => *self = Self::load(tables)?,
            Part::Hardware(mac) => {
                put(&mut self.hardware, mac, tables.hardware(mac)?.map(Arc::new));
            }
        }
        Ok(())
    }

    fn put_lease(&mut self, mac: Mac, lease: Option<Lease>) {
        // The address may have gone to another NIC in the same commit, which was read first.
        if let Some(former) = self.leases.get(&mac)
            && self.owners.get(&former.address) == Some(&mac)
        {
            self.owners.remove_mut(&former.address);
        }
        if let Some(lease) = &lease {
            self.owners.insert_mut(lease.address, mac);
        }
        put(&mut self.leases, mac, lease.map(Arc::new));
    }

    fn put_boot(&mut self, mac: Mac, last: Option<LastBoot>, earlier: Option<LastBoot>) {
        put(&mut self.boots, mac, last);
        self.put_earlier(mac, earlier);
    }

    fn put_open(&mut self, mac: Mac, open: Vec<LastBoot>) {
        put(&mut self.open, mac, (!open.is_empty()).then(|| open.into()));
    }

    fn put_earlier(&mut self, mac: Mac, earlier: Option<LastBoot>) {
        put(&mut self.proven, mac, earlier);
        let both = [self.boots.get(&mac), self.proven.get(&mac)];
        let mut orders = both.into_iter().flatten().filter_map(|boot| boot.order.as_ref());
        let is_ordered = orders.any(|order| order.obeyed_unix_ms.is_none());
        put(&mut self.ordered, mac, is_ordered.then_some(()));
    }
}

fn put<K: Eq + Hash, V>(map: &mut HashTrieMapSync<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => map.insert_mut(key, value),
        None => drop(map.remove_mut(&key)),
    }
}
