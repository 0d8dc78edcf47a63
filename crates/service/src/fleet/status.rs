//! What pages and command line show.

use crate::boot::words::{Control, PowerState};
use crate::error::Error;
use crate::fleet::rescue::Rescue;
use crate::fleet::state::{MachineState, StateWord, machine_state};
use crate::initrds::build::InitrdState;
use crate::live::heartbeats::Life;
use crate::service::{Service, now_unix, now_unix_ms};
use crate::storage_client;
use crate::store::view::View;
use model::{
    Boot, ExportStatus, Firmware, ImageName, Lease, Machine, MachineName, Site, Space, Stage,
    WriteMode,
};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

/// How often the storage server is asked for its exports.
const EXPORTS_INTERVAL: Duration = Duration::from_secs(2);

/// From here on a machine's memory for changes is short; the machine itself warns at the same.
const RAM_SHORT_PERCENT: u8 = 80;

/// Entries of [`Status::attention`]; nobody mends more at once.
const ATTENTION_MAX: usize = 7;

/// What the storage server said last.
#[derive(Clone, Debug, Default)]
pub(crate) struct Exports {
    /// When it was asked, seconds since 1970; 0 is never.
    asked_unix: u64,
    list: Arc<Vec<ExportStatus>>,
    /// The room that is left there, if it is known.
    space: Option<Space>,
    /// Why it did not answer.
    error: Option<String>,
}

/// A machine with everything that is known of it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct MachineView {
    /// What the administrator chose.
    #[serde(flatten)]
    pub machine: Machine,
    /// What it does now.
    pub state: MachineState,
    /// Address that it has leased.
    pub address: Option<Ipv4Addr>,
    /// Its firmware, once it has asked.
    pub firmware: Option<Firmware>,
    /// Its last boot.
    pub boot: Option<Boot>,
    /// Whether it has shown in its last boot that it knows the secret of that boot; then it can be told to
    /// stop, and what comes in its name without a proof is refused.
    pub is_proven: bool,
    /// What it was asked to do in its last boot.
    pub power: Option<PowerState>,
    /// A rescue shell in which its next boot stops, or its last one that has no root yet.
    pub rescue: Option<Rescue>,
    /// Words in its last boot that were refused, since their proof was wrong or missing.
    pub n_refused: u64,
    /// The image version that it gets at its next boot.
    pub next_version: Option<u32>,
    /// How full its memory for changes is, in percent; `None` if it has none, or is off.
    pub ram_used_percent: Option<u8>,
    /// Its disk as the storage server sees it.
    pub export: Option<ExportStatus>,
}

impl MachineView {
    /// How full its memory for changes is, and what helps if it is short.
    pub fn ram_sentence(&self) -> Option<String> {
        let percent = self.ram_used_percent?;
        Some(match percent >= RAM_SHORT_PERCENT {
            true => ram_sentence(percent),
            false => format!("Its memory for changes is {percent} % full."),
        })
    }

    /// From the firmware's first packet to the end of the system's start, in milliseconds.
    pub fn took_ms(&self) -> Option<u64> {
        let boot = self.boot.as_ref()?;
        let up = boot.stages.iter().find(|event| event.stage == Stage::Up)?;
        Some(up.at_unix_ms.saturating_sub(boot.started_unix_ms))
    }
}

/// Something that a person should look at.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Attention {
    /// The machine, if it is about one.
    pub machine: Option<MachineName>,
    /// What is the matter, and what to do.
    pub sentence: String,
    /// The image, if it is about one.
    pub image: Option<ImageName>,
}

/// The site at a glance.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Status {
    /// How many machines there are.
    pub n_machines: usize,
    /// How many of them are in which state.
    pub machines: BTreeMap<StateWord, usize>,
    /// How many image versions there are.
    pub n_image_versions: usize,
    /// How many PCs ask and are no machines.
    pub n_discovered: usize,
    /// Why the storage server does not answer; `None` if it does.
    pub storage_error: Option<String>,
    /// How much room machines' writes have at the storage server, if that is known.
    pub space: Option<Space>,
    /// What a person should look at, the worst first.
    pub attention: Vec<Attention>,
    /// How many entries of `attention` were left out.
    pub n_attention_left_out: usize,
}

/// What a machine would get if it asked now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preview {
    /// GRUB's configuration.
    pub grub_cfg: String,
    /// Whether its address is only an example, since it never had one.
    pub is_example_address: bool,
}

impl Service {
    /// Keeps initrds built and the storage server's view fresh. Runs until it is dropped; a boot
    /// server needs it.
    pub async fn run(&self) {
        let exports = async {
            loop {
                self.refresh_exports().await;
                tokio::time::sleep(EXPORTS_INTERVAL).await;
            }
        };
        tokio::join!(exports, self.keep_initrds_built());
    }

    /// Asks the storage server for its exports. Pages show what it said last.
    pub async fn refresh_exports(&self) {
        let asked_unix = now_unix();
        let socket = &self.options().storage_socket;
        let answer = storage_client::exports(socket).await;
        let space = match answer {
            Ok(_) => storage_client::space(socket).await.ok(),
            Err(_) => None,
        };
        let (list, error) = match answer {
            Ok(list) => (list, None),
            Err(error) => (Vec::new(), Some(wire::error_chain(&error))),
        };
        let former = self.exports_cell().borrow().error.clone();
        match (&former, &error) {
            (former, Some(error)) if former.as_ref() != Some(error) => {
                tracing::warn!(error, "storage server");
            }
            (Some(_), None) => tracing::info!("the storage server answers again"),
            _ => {}
        }
        self.exports_cell().send_replace(Exports {
            asked_unix,
            list: Arc::new(list),
            space,
            error,
        });
    }

    /// All machines with everything that is known of them, by name. Never waits.
    pub fn machines(&self) -> Vec<MachineView> {
        let view = self.view();
        let exports = Arc::clone(&self.exports_cell().borrow().list);
        let now = now_unix_ms();
        let machines = view.site.machines.iter();
        machines
            .map(|machine| {
                let lease: Option<&Lease> =
                    view.leases.iter().find(|lease| lease.mac == machine.mac);
                let seen = view.seen.iter().find(|seen| seen.mac == machine.mac);
                let boot = view.boots.get(&machine.mac).map(|boot| Boot::clone(boot));
                let export = exports.iter().find(|export| export.spec.machine == machine.name);
                let waiting = self.waits().get(machine.mac);
                let life = boot.as_ref().map_or(Life::Unknown, |boot| {
                    self.heartbeats().life(machine.mac, boot.id, now)
                });
                let control = view.controls.get(&machine.mac);
                let ram_used_percent = boot
                    .as_ref()
                    .filter(|_| life == Life::Alive)
                    .and_then(|boot| self.heartbeats().ram_used_percent(machine.mac, boot.id));
                let state = machine_state(boot.as_ref(), waiting.as_deref(), export, life, now);
                let next = machine
                    .image
                    .as_ref()
                    .and_then(|image| kept(machine, export).or_else(|| newest(&view.site, image)));
                MachineView {
                    machine: machine.clone(),
                    state,
                    address: lease.map(|lease| lease.address),
                    firmware: boot
                        .as_ref()
                        .map(|boot| boot.firmware)
                        .or(seen.map(|seen| seen.firmware)),
                    is_proven: control.is_some_and(|control| control.is_proven),
                    power: control.and_then(|control| control.order.clone()),
                    rescue: rescue(&view, machine, boot.as_ref(), control),
                    n_refused: boot.as_ref().map_or(0, |boot| self.refused().of(boot.id)),
                    boot,
                    next_version: next,
                    ram_used_percent,
                    export: export.cloned(),
                }
            })
            .collect()
    }

    /// One machine with everything that is known of it. Never waits.
    ///
    /// # Errors
    /// There is no such machine.
    pub fn machine(&self, name: &MachineName) -> Result<MachineView, Error> {
        let found = self.machines().into_iter().find(|view| view.machine.name == *name);
        found.ok_or_else(|| Error::NoMachine(name.clone()))
    }

    /// The site at a glance. Asks the storage server if that was not done just now.
    pub async fn status(&self) -> Status {
        let asked_unix = self.exports_cell().borrow().asked_unix;
        if now_unix().saturating_sub(asked_unix) > 2 * EXPORTS_INTERVAL.as_secs() {
            self.refresh_exports().await;
        }
        let machines = self.machines();
        let site = self.site();
        let mut words = BTreeMap::new();
        for view in &machines {
            *words.entry(view.state.word).or_default() += 1;
        }
        let storage_error = self.exports_cell().borrow().error.clone();
        let space = self.exports_cell().borrow().space;
        let mut attention = self.attention(&machines, storage_error.as_deref(), space);
        let n_attention_left_out = attention.len().saturating_sub(ATTENTION_MAX);
        attention.truncate(ATTENTION_MAX);
        Status {
            n_machines: machines.len(),
            machines: words,
            n_image_versions: site.images.len(),
            n_discovered: site.discovered.len(),
            storage_error,
            space,
            attention,
            n_attention_left_out,
        }
    }

    /// What a machine's loader would get now, without preparing anything.
    ///
    /// # Errors
    /// There is no such machine.
    pub fn preview(&self, name: &MachineName) -> Result<Option<Preview>, Error> {
        let view = self.machine(name)?;
        let Some(network) = &self.options().network else { return Ok(None) };
        let address = view.address.unwrap_or(network.server);
        Ok(Some(Preview {
            grub_cfg: self.preview_config(network, view.machine.mac, address),
            is_example_address: view.address.is_none(),
        }))
    }

    fn attention(
        &self,
        machines: &[MachineView],
        storage_error: Option<&str>,
        space: Option<Space>,
    ) -> Vec<Attention> {
        let mut attention = Vec::new();
        if let Some(error) = storage_error {
            attention.push(Attention {
                machine: None,
                sentence: format!("No machine can start: {error}."),
                image: None,
            });
        }
        if let Some(space) = space.filter(Space::is_short) {
            attention.push(Attention {
                machine: None,
                sentence: space_sentence(space),
                image: None,
            });
        }
        let site = self.site();
        for version in &site.images {
            if let InitrdState::Failed(why) = self.initrd_state(&version.image, version.version) {
                attention.push(Attention {
                    machine: None,
                    sentence: format!(
                        "{}/v{} can't be booted, as it has no initrd: {why}.",
                        version.image, version.version
                    ),
                    image: Some(version.image.clone()),
                });
            }
        }
        let mut needy: Vec<&MachineView> =
            machines.iter().filter(|view| view.state.word.needs_attention()).collect();
        needy.sort_by_key(|view| view.state.word);
        attention.extend(needy.into_iter().map(|view| Attention {
            machine: Some(view.machine.name.clone()),
            sentence: view.state.sentence.clone(),
            image: None,
        }));
        attention.extend(machines.iter().filter_map(|view| {
            let percent = view.ram_used_percent.filter(|&percent| percent >= RAM_SHORT_PERCENT)?;
            Some(Attention {
                machine: Some(view.machine.name.clone()),
                sentence: ram_sentence(percent),
                image: None,
            })
        }));
        attention
    }
}

fn rescue(
    view: &View,
    machine: &Machine,
    boot: Option<&Boot>,
    control: Option<&Arc<Control>>,
) -> Option<Rescue> {
    if let Some(password) = view.rescues.get(machine.name.as_str()) {
        return Some(Rescue { password: password.clone(), boot: None });
    }
    let (boot, password) = (boot?, control?.rescue.clone()?);
    let is_failed = boot.current().is_some_and(|last| last.stage == Stage::Failed);
    let is_over = boot.stages.iter().any(|event| event.stage >= Stage::Attach);
    (is_failed || !is_over).then_some(Rescue { password, boot: Some(boot.id) })
}

/// What it means that a machine's memory for changes is so full.
fn ram_sentence(percent: u8) -> String {
    let then = match percent {
        100 => "nothing more can be written",
        _ => "when it is full, nothing more can be written",
    };
    format!(
        "Its memory for changes is {percent} % full; {then}. Delete files there, or start it again, which \
         forgets them."
    )
}

/// What it means that the storage server has so little room.
fn space_sentence(space: Space) -> String {
    format!(
        "The storage server's disk is nearly full: {:.1} GB of {:.0} GB are left. Machines that write wait \
         when it is full. Delete images, disks or files that are not needed.",
        space.free_bytes as f64 / 1e9,
        space.total_bytes as f64 / 1e9
    )
}

fn newest(site: &Site, image: &ImageName) -> Option<u32> {
    site.newest(image).map(|version| version.version)
}

/// The version that a machine stays on because it keeps its disk.
fn kept(machine: &Machine, export: Option<&ExportStatus>) -> Option<u32> {
    let spec = &export?.spec;
    let is_kept = machine.write_mode == WriteMode::Persistent
        && spec.write_mode == WriteMode::Persistent
        && !machine.reset_disk
        && machine.image.as_ref() == Some(&spec.image);
    is_kept.then_some(spec.version)
}
