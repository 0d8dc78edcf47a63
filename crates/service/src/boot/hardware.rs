//! What machines are made of, and which of them get an initrd made for that.

use crate::error::Error;
use crate::service::Service;
use crate::store::Hardware;
use model::{BootId, BootPlan, FindingKind, Stage, Subject};
use wire::Mac;

impl Service {
    /// Keeps the list of a machine's hardware. Of strangers, and of boots that the machine is not in,
    /// nothing is kept: whether it was.
    ///
    /// # Errors
    /// The database can't be written.
    pub async fn keep_hardware(&self, mac: Mac, boot: BootId, list: &[u8]) -> Result<bool, Error> {
        let mut hardware = Hardware::parse(boot, &String::from_utf8_lossy(list));
        if !self.is_machines_last(mac, boot) || hardware.fitting().next().is_none() {
            return Ok(false);
        }
        let kept = self.database().write(move |tables| {
            if let Some(former) = tables.hardware(mac)?
                && former.key() == hardware.key()
            {
                hardware.fitted_boot = former.fitted_boot;
                hardware.failures = former.failures;
            }
            Ok(tables.put_hardware(mac, &hardware)?)
        });
        kept.await?;
        self.initrds().look_again();
        Ok(true)
    }

    /// Whether this is the last boot of a machine.
    pub(super) fn is_machines_last(&self, mac: Mac, boot: BootId) -> bool {
        let is_last = self.boot_of(mac).is_some_and(|last| last.id == boot);
        is_last && self.site().machine_by_mac(mac).is_some()
    }

    /// The initrd made for its hardware that this boot gets; `None`: the one for all machines.
    ///
    /// A machine that did not find its disk with one gets the other the next time, and after two such
    /// boots in a row always.
    pub(crate) async fn fitted_initrd(
        &self,
        plan: &BootPlan,
        boot: BootId,
        is_configured: bool,
    ) -> Result<Option<String>, Error> {
        // What a machine is made of changes with its NIC: a laptop beside its dock has no use for the dock's driver.
        let mac = plan.config.mac;
        if !self.options().fitted_initrds || plan.machine.root.is_foreign() {
            return Ok(None);
        }
        let view = self.view();
        let Some(hardware) = view.hardware.get(&mac) else { return Ok(None) };
        let key = hardware.key();
        let is_ready = self.initrds().shelf().is_built(&self.initrds().fitted(&plan.image, &key));
        if is_configured {
            // Its loader asks once more: the answer stays the same.
            return Ok((is_ready && hardware.fitted_boot == Some(boot)).then_some(key));
        }
        let decided = self.database().write(move |tables| {
            let Some(mut hardware) = tables.hardware(mac)? else { return Ok((false, None)) };
            let former = hardware.fitted_boot.take();
            let failed = match former {
                Some(former) => tables.boot(former)?.filter(|former| !has_found_its_disk(former)),
                None => None,
            };
            if failed.is_some() {
                hardware.failures += 1;
            } else if former.is_some() {
                hardware.failures = 0;
            }
            let is_fitted = is_ready && failed.is_none() && hardware.is_trusted();
            if is_fitted {
                hardware.fitted_boot = Some(boot);
            }
            if is_fitted || former.is_some() {
                tables.put_hardware(mac, &hardware)?;
            }
            Ok((is_fitted, failed.map(|failed| failed.id)))
        });
        let (is_fitted, failed) = decided.await?;
        if let Some(boot) = failed {
            let subject = Subject::Machine(plan.machine.name.clone());
            let cause =
                format!("The initrd made for this machine did not bring it up in its boot {boot}");
            self.found(FindingKind::FittedInitrdFailed, &subject, cause);
        }
        Ok(is_fitted.then_some(key))
    }
}

impl Service {
    /// The hardware for which this machine's next boot probably gets an initrd, as it looks now: nothing is noted.
    pub(crate) fn likely_fitted(&self, plan: &BootPlan) -> Option<String> {
        if !self.options().fitted_initrds || plan.machine.root.is_foreign() {
            return None;
        }
        let view = self.view();
        let mac = plan.config.mac;
        let hardware = view.hardware.get(&mac).filter(|hardware| hardware.is_trusted())?;
        let last = view.boots.get(&mac).map(|last| &*last.boot);
        let has_failed = last
            .is_some_and(|last| hardware.fitted_boot == Some(last.id) && !has_found_its_disk(last));
        let key = hardware.key();
        let is_ready = self.initrds().shelf().is_built(&self.initrds().fitted(&plan.image, &key));
        (is_ready && !has_failed).then_some(key)
    }
}

/// Whether that boot came as far as its root disk. One that never fetched its initrd says nothing about it.
fn has_found_its_disk(boot: &model::Boot) -> bool {
    let reached = |stage: Stage| boot.stages.iter().any(|event| event.stage == stage);
    reached(Stage::Attach) || !reached(Stage::Initrd)
}
