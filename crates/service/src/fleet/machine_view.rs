//! A machine with everything that is known of it.

use super::machine_state::{MachineState, Signs, StateWord, machine_state};
use super::rescue::Rescue;
use crate::error::Error;
use crate::live::Life;
use crate::loader::{GivenLoader, secure_boot};
use crate::service::Service;
use crate::store::{LastBoot, PowerState, View};
use model::{
    Boot, ExportStatus, FindingKind, Firmware, KeptDisk, Machine, MachineName, SecureBoot, Site,
    Stage, WriteMode,
};
use std::collections::HashMap;
use std::net::Ipv4Addr;
use wire::Mac;

/// From here on a machine's memory for changes is short; the machine itself warns at the same.
pub(super) const RAM_SHORT_PERCENT: u8 = 80;

/// A machine with everything that is known of it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct MachineView {
    /// What the administrator chose.
    #[serde(flatten)]
    pub machine: Machine,
    /// What it does now.
    pub state: MachineState,
    /// Address of the NIC that its last boot came from, or else of any of its NICs.
    pub address: Option<Ipv4Addr>,
    /// Its NICs, the first first.
    pub nics: Vec<Nic>,
    /// Its SMBIOS UUID, as it sent it last.
    pub uuid: Option<String>,
    /// Its firmware, once it has asked.
    pub firmware: Option<Firmware>,
    /// Whether its firmware starts only what is signed, as it said in its last boot that came so far.
    pub secure_boot: Option<SecureBoot>,
    /// The loader that it gets at its next boot; `None` if it never asked, or no boot server says so.
    pub loader: Option<GivenLoader>,
    /// A later boot that began in its name, and has not shown that it is the machine's.
    pub candidate: Option<Boot>,
    /// The machine was heard in its own boot since that one began: it is another PC with its MAC address, or somebody who
    /// speaks in its name.
    pub has_double: bool,
    /// Its last boot, but for that one.
    pub boot: Option<Boot>,
    /// Whether it has shown in its last boot that it knows the secret of that boot; then it can be told to
    /// stop, and what comes in its name without a proof is refused.
    pub is_proven: bool,
    /// What it was asked to do in its last boot.
    pub power: Option<PowerState>,
    /// A rescue shell in which its next boot stops, or its last one that has no root yet.
    pub rescue: Option<Rescue>,
    /// What was said or asked in its name in its last boot and was refused: its proof was wrong or missing, or it
    /// can't be what the machine wants.
    pub n_refused: u64,
    /// The image version that it gets at its next boot.
    pub next_version: Option<u32>,
    /// What becomes of what it writes there: `write_mode`, unless a foreign server has the root.
    pub writes: WriteMode,
    /// What is wrong with that version, so that it can't start until somebody does something about it.
    pub start_trouble: Option<String>,
    /// How full its memory for changes is, in percent; `None` if it has none, or is off.
    pub ram_used_percent: Option<u8>,
    /// Its disk as the storage server sees it.
    pub export: Option<ExportStatus>,
}

/// A NIC that a machine boots from.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Nic {
    /// Its address.
    pub mac: Mac,
    /// The IPv4 address that it has leased, or had last.
    pub address: Option<Ipv4Addr>,
}

impl MachineView {
    /// How full its memory for changes is, and what helps if it is short.
    pub fn ram_sentence(&self) -> Option<String> {
        let percent = self.ram_used_percent?;
        Some(match percent >= RAM_SHORT_PERCENT {
            true => format!("{}. {}", ram_cause(percent), FindingKind::RamNearlyFull.remedy()),
            false => format!("Its memory for changes is {percent} % full."),
        })
    }

    /// What it means that a boot began in its name while it runs.
    pub fn candidate_sentence(&self) -> Option<String> {
        let cause = self.candidate_cause()?;
        Some(format!("{cause}. {}", FindingKind::CandidateBoot.remedy()))
    }

    /// Why somebody should know that.
    pub(super) fn candidate_cause(&self) -> Option<&'static str> {
        let candidate = self.candidate.as_ref().filter(|_| self.has_double)?;
        let is_same_nic = self.boot.as_ref().is_none_or(|boot| boot.mac == candidate.mac);
        Some(match is_same_nic {
            true => {
                "A PC with its MAC address began to boot while it runs, and gets nothing of this machine as long as \
                 this one answers. Probably a dock or a second PC has the same MAC address, or somebody sends DHCP \
                 messages in its name"
            }
            false => {
                "A PC with another of its MAC addresses began to boot while it runs, and gets nothing of this machine \
                 as long as this one answers. Probably somebody uses its other network card or its dock, or sends \
                 DHCP messages in its name"
            }
        })
    }

    /// Whether it is up with another version of its image than it gets at its next boot.
    pub fn is_behind(&self) -> bool {
        let booted = self.boot.as_ref().and_then(|boot| boot.image.as_ref());
        self.state.word == StateWord::Up
            && booted.zip(self.next_version).is_some_and(|((image, version), next)| {
                self.machine.has_image(image) && *version != next
            })
    }

    /// How long its last boot took, in milliseconds: see [`Boot::took_ms`].
    pub fn took_ms(&self) -> Option<u64> {
        self.boot.as_ref()?.took_ms()
    }
}

impl Service {
    /// All machines with everything that is known of them, by name. Never waits.
    pub fn machines(&self) -> Vec<MachineView> {
        let view = self.view();
        let answer = self.exports().last();
        let now = self.now();
        let said_unix_ms = answer.asked.map(|asked| {
            let age_ms = now.moment.since(asked).as_millis() as u64;
            now.unix_ms.saturating_sub(age_ms)
        });
        let exports: HashMap<&MachineName, &ExportStatus> =
            answer.list.iter().map(|export| (&export.spec.disk.machine, export)).collect();
        let disks: HashMap<&MachineName, &KeptDisk> = answer
            .disks
            .iter()
            .filter_map(|disk| Some((&disk.disk.machine, disk.stands_on.as_ref()?)))
            .collect();
        let machines = view.site.machines.iter();
        machines
            .map(|machine| {
                let boots = self.boots(&view, machine.mac, now);
                let last = boots.map(|boots| boots.current);
                let candidate = boots.and_then(|boots| boots.candidate);
                let has_double = boots.is_some_and(|boots| {
                    let own = &boots.current.boot;
                    let heard = self.heartbeats().heard_unix_ms(own.id, now);
                    let heard = heard.max(own.current().map(|event| event.at_unix_ms));
                    boots.candidate.is_some_and(|last| heard >= Some(last.boot.started_unix_ms))
                });
                let boot = last.map(|last| Boot::clone(&last.boot));
                let export = exports.get(&machine.name).copied();
                // What an earlier boot has of it says nothing about this one.
                let of_boot = export
                    .filter(|export| boot.as_ref().is_some_and(|boot| boot.id == export.spec.boot));
                let nic = boot.as_ref().map_or(machine.mac, |boot| boot.mac);
                let address = |mac| view.lease(mac).map(|lease| lease.address);
                let seen = machine.macs().filter_map(|mac| view.seen.get(&mac));
                let seen = seen.max_by_key(|seen| seen.last_unix);
                let life = boot
                    .as_ref()
                    .map_or(Life::Unknown, |boot| self.heartbeats().life(boot.id, now));
                let ram_used_percent = boot
                    .as_ref()
                    .filter(|_| life == Life::Alive)
                    .and_then(|boot| self.heartbeats().ram_used_percent(boot.id));
                let life = self.life_without_disk(life, of_boot, now);
                let disk = disks.get(&machine.name).copied();
                let next = next_version(&view.site, machine, export, disk);
                let waiting = self.waiting(&view.site, machine, next, nic, now.moment);
                // That nobody had its disk open before it got so far says nothing of now.
                let is_known = |export: &&ExportStatus| {
                    let reached = boot.as_ref().and_then(Boot::current).map(|it| it.at_unix_ms);
                    export.connections > 0 || said_unix_ms.is_none_or(|said| Some(said) >= reached)
                };
                let firmware = boot.as_ref().map(|boot| boot.firmware);
                let firmware = firmware.or(seen.map(|seen| seen.firmware));
                let loader = firmware.and_then(|firmware| self.given_loader(&view, nic, firmware));
                let signs = Signs {
                    waiting: waiting.as_ref().map(|(why, _)| why.as_str()),
                    export: of_boot.filter(is_known),
                    life,
                    download: self.downloads().get(nic, now.moment),
                    n_wordless: last.map_or(0, |last| last.n_wordless),
                    next_loader: loader.as_ref(),
                };
                let mut state = machine_state(boot.as_ref(), signs, now.unix_ms);
                if waiting.is_some_and(|(_, is_over)| is_over) && state.word == StateWord::Waiting {
                    // It needs nobody any more.
                    state.word = StateWord::Loading;
                }
                MachineView {
                    machine: machine.clone(),
                    state,
                    address: [nic].into_iter().chain(machine.macs()).find_map(address),
                    nics: machine.macs().map(|mac| Nic { mac, address: address(mac) }).collect(),
                    uuid: seen.and_then(|seen| seen.uuid.clone()),
                    firmware,
                    secure_boot: secure_boot(&view, nic),
                    loader,
                    is_proven: last.is_some_and(|last| last.proof.is_given),
                    power: last.and_then(|last| last.order.clone()),
                    rescue: rescue(&view, machine),
                    candidate: candidate.map(|last| Boot::clone(&last.boot)),
                    has_double,
                    n_refused: boot.as_ref().map_or(0, |boot| self.refused().of(boot.id)),
                    boot,
                    next_version: next,
                    writes: machine.as_it_boots().writes(),
                    start_trouble: self.start_trouble(machine, next),
                    ram_used_percent,
                    export: export.cloned(),
                }
            })
            .collect()
    }

    /// The version that a machine gets at its next boot, by what the storage server said last.
    pub(super) fn next_version(&self, site: &Site, machine: &Machine) -> Option<u32> {
        let answer = self.exports().last();
        let export = answer.list.iter().find(|export| export.spec.disk == machine.name);
        let disk = answer.disks.iter().find(|disk| disk.disk == machine.name);
        next_version(site, machine, export, disk.and_then(|disk| disk.stands_on.as_ref()))
    }

    /// One machine with everything that is known of it. Never waits.
    ///
    /// # Errors
    /// There is no such machine.
    pub fn machine(&self, name: &MachineName) -> Result<MachineView, Error> {
        let found = self.machines().into_iter().find(|view| view.machine.name == *name);
        found.ok_or_else(|| Error::NoMachine(name.clone()))
    }
}

fn rescue(view: &View, machine: &Machine) -> Option<Rescue> {
    if let Some(password) = view.rescues.get(machine.name.as_str()) {
        return Some(Rescue { password: Some(password.clone()), boot: None });
    }
    // Somebody may have begun another boot, which was to stop there as well as long as none was known to be the machine's.
    let mut boots = view.boots_of(machine.mac);
    let stops = boots.find(|known| known.rescue.is_some() && known.proof.is_given);
    let LastBoot { boot, rescue, .. } = stops?;
    let is_failed = boot.current().is_some_and(|last| last.stage == Stage::Failed);
    let is_over = boot.stages.iter().any(|event| event.stage >= Stage::Attach);
    let password = rescue.clone().filter(|_| is_failed || !is_over)?;
    Some(Rescue { password: Some(password), boot: Some(boot.id) })
}

/// What it means that a machine's memory for changes is so full.
pub(super) fn ram_cause(percent: u8) -> String {
    let then = match percent {
        100 => "nothing more can be written",
        _ => "when it is full, nothing more can be written",
    };
    format!("Its memory for changes is {percent} % full; {then}")
}

/// The version that a machine gets at its next boot; one that it stays on may be gone.
fn next_version(
    site: &Site,
    machine: &Machine,
    export: Option<&ExportStatus>,
    disk: Option<&KeptDisk>,
) -> Option<u32> {
    let machine = machine.as_it_boots();
    let kept = kept(&machine, export, disk).filter(|_| machine.image.is_some());
    kept.or_else(|| site.chosen_for(&machine).map(|version| version.version))
}

/// The version that a machine stays on because it keeps its disk.
fn kept(machine: &Machine, export: Option<&ExportStatus>, disk: Option<&KeptDisk>) -> Option<u32> {
    if machine.write_mode != WriteMode::Persistent
        || machine.root.is_foreign()
        || machine.reset_disk
    {
        return None;
    }
    let exported = export.map(|export| &export.spec);
    let exported = exported.filter(|spec| spec.write_mode == WriteMode::Persistent);
    let made_on = exported.map(|spec| (&spec.image, spec.version));
    let made_on = made_on.or_else(|| disk.map(|disk| (&disk.image, disk.version)));
    made_on.filter(|(image, _)| machine.has_image(image)).map(|(_, version)| version)
}
