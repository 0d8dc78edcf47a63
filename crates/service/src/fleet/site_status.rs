//! What pages and command line show.

use super::machine_state::StateWord;
use crate::backup::last_image_backup;
use crate::service::Service;
use model::{AddressPool, Finding, Space};
use std::collections::BTreeMap;

/// Causes in [`Status::findings`]; nobody fixes more at once.
const FINDINGS_SHOWN_MAX: usize = 7;

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
    /// How full the pool of addresses is, if the boot server runs here.
    pub pool: Option<AddressPool>,
    /// When images were kept elsewhere last, seconds since 1970; `None` if that is not done.
    pub image_backup_unix: Option<u64>,
    /// What a person should know, the worst first; those with one cause stand together.
    pub findings: Vec<Finding>,
    /// How many entries of `findings` were left out.
    pub n_findings_left_out: usize,
}

impl Service {
    /// The site at a glance. Asks the storage server if that was not done just now.
    pub async fn status(&self) -> Status {
        let mut findings = self.findings().await;
        let shown =
            findings.chunk_by(Finding::is_like).take(FINDINGS_SHOWN_MAX).map(<[_]>::len).sum();
        let n_findings_left_out = findings.len() - shown;
        findings.truncate(shown);
        let machines = self.machines();
        let site = self.site();
        let mut words = BTreeMap::new();
        for view in &machines {
            *words.entry(view.state.word).or_default() += 1;
        }
        let exports = self.exports().last();
        let (storage_error, space) = (exports.error.clone(), exports.space);
        Status {
            n_machines: machines.len(),
            machines: words,
            n_image_versions: site.images.len(),
            n_discovered: self.n_discovered(),
            storage_error,
            space,
            pool: self.address_pool(),
            image_backup_unix: last_image_backup(&self.options().database),
            findings,
            n_findings_left_out,
        }
    }
}
