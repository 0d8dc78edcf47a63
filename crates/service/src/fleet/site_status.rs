//! What pages and command line show.

use super::machine_state::StateWord;
use super::machine_view::{MachineView, RAM_SHORT_PERCENT, ram_sentence};
use crate::initrds::InitrdState;
use crate::service::Service;
use model::{ImageName, MachineName, Space};
use std::collections::BTreeMap;

/// Entries of [`Status::attention`]; nobody fixes more at once.
const ATTENTION_MAX: usize = 7;

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

impl Service {
    /// The site at a glance. Asks the storage server if that was not done just now.
    pub async fn status(&self) -> Status {
        self.look_at_exports().await;
        let machines = self.machines();
        let site = self.site();
        let mut words = BTreeMap::new();
        for view in &machines {
            *words.entry(view.state.word).or_default() += 1;
        }
        let exports = self.exports().last();
        let (storage_error, space) = (exports.error.clone(), exports.space);
        let mut attention = self.attention(&machines, storage_error.as_deref(), space);
        let n_attention_left_out = attention.len().saturating_sub(ATTENTION_MAX);
        attention.truncate(ATTENTION_MAX);
        Status {
            n_machines: machines.len(),
            machines: words,
            n_image_versions: site.images.len(),
            n_discovered: self.discovered().len(),
            storage_error,
            space,
            attention,
            n_attention_left_out,
        }
    }

    fn attention(
        &self,
        machines: &[MachineView],
        storage_error: Option<&str>,
        space: Option<Space>,
    ) -> Vec<Attention> {
        let mut attention = Vec::new();
        if let Some(trouble) = self.database().trouble() {
            attention.push(Attention {
                machine: None,
                sentence: format!("No machine can start: nothing can be stored, as {trouble}."),
                image: None,
            });
        }
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

/// What it means that the storage server has so little room.
fn space_sentence(space: Space) -> String {
    format!(
        "The storage server's disk is nearly full: {:.1} GB of {:.0} GB are left. Machines that write wait \
         when it is full. Delete images, disks or files that are not needed.",
        space.free_bytes as f64 / 1e9,
        space.total_bytes as f64 / 1e9
    )
}
