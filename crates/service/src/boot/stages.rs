//! Boots and the stages that they reach.

use crate::clock::Now;
use crate::error::Error;
use crate::live::StageTimes;
use crate::service::Service;
use crate::store::{self, NewBoot, Sighting, Transaction};
use initcfg::Token;
use model::{
    Boot, BootId, BootIdentity, Firmware, ImageName, ImageVersion, MachineName, RootKind, Stage,
    StageEvent,
};
use std::sync::Arc;
use wire::Mac;

/// Firmware may ask several times for one power-on: once for itself, once for its loader, once more
/// over a second protocol. After this silence it was switched off and on.
const SAME_POWER_ON_MS: u64 = 60_000;

/// Longest detail of a stage in bytes; a report is one datagram of at most 1024.
const DETAIL_MAX: usize = 512;

/// A stage that a machine has reached just now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewStage {
    /// The stage.
    pub stage: Stage,
    /// More about it, for people; may be empty.
    pub detail: String,
    /// Milliseconds since the machine's kernel started, if it told.
    pub uptime_ms: Option<u64>,
}

impl NewStage {
    /// A stage that the boot server itself has noticed.
    pub fn noticed(stage: Stage, detail: impl Into<String>) -> Self {
        Self { stage, detail: detail.into(), uptime_ms: None }
    }
}

/// Which boot a machine is in that asks for its configuration.
pub(super) enum Prepared {
    /// This boot is to get the image; the boolean tells whether it has its configuration already.
    Boot(BootId, bool),
    /// No firmware of this NIC ever asked, or the machine has started by another one since: nobody knows which power-on
    /// this is.
    NeverStarted,
    /// The machine runs with something else.
    Running(Box<Boot>),
}

impl Service {
    /// The last boot of the PC with this NIC, from whichever of its NICs.
    pub fn boot_of(&self, mac: Mac) -> Option<Arc<Boot>> {
        self.view().boots.get(&mac).map(|last| Arc::clone(&last.boot))
    }

    /// The last boots of the PC with this NIC, from all of its NICs, the last first.
    ///
    /// # Errors
    /// The database can't be read.
    pub async fn boots_of(&self, mac: Mac, n_boots: u32) -> Result<Vec<Boot>, Error> {
        self.database().read(move |tables| tables.boots_of(mac, n_boots)).await
    }

    /// The firmware of a NIC asks for an address: opens a boot, unless one from this NIC is open already and is the
    /// machine's last. Firmware with two NICs tries one after the other: each is a boot, since the loader comes from one.
    /// If so many were opened lately that this is probably none, it belongs to the last one from this NIC, as long as nobody
    /// has proven that.
    ///
    /// # Errors
    /// The database can't be written, or too many changes wait.
    pub async fn boot_started(&self, mac: Mac, firmware: Firmware) -> Result<BootId, Error> {
        self.begin(mac, firmware, None, None).await
    }

    /// The firmware of a PC has an address: the PC was seen, a boot [has started](Self::boot_started), and has reached this stage.
    /// That is one change: a room that is switched on makes many.
    ///
    /// # Errors
    /// The database can't be written, or too many changes wait.
    pub async fn firmware_starts(
        &self,
        sighting: Sighting,
        stage: NewStage,
    ) -> Result<BootId, Error> {
        let Sighting { mac, firmware, .. } = sighting;
        let sighting = self.is_noted(mac, self.now()).then_some(sighting);
        self.begin(mac, firmware, sighting, Some(stage)).await
    }

    async fn begin(
        &self,
        mac: Mac,
        firmware: Firmware,
        sighting: Option<Sighting>,
        stage: Option<NewStage>,
    ) -> Result<BootId, Error> {
        let now = self.now();
        if self.view().site.machine_by_mac(mac).is_some() {
            self.firmware_heard().note(mac, firmware, now.moment);
        }
        self.ask_earlier_boot(mac);
        let reached = stage.map(|NewStage { stage, detail, uptime_ms }| {
            let event = StageEvent { stage, at_unix_ms: now.unix_ms, detail: clean(&detail) };
            (event, uptime_ms)
        });
        // Most of the packets of a power-on change nothing.
        if let Some(boot) = self.boot_of(mac).filter(|boot| is_same_power_on(boot, mac, now))
            && sighting.is_none()
            && reached.as_ref().is_none_or(|(event, _)| has_reached(&boot, event.stage))
        {
            return Ok(boot.id);
        }
        let (token, identity) = (new_token()?, new_identity()?);
        let new = NewBoot { mac, firmware, started_unix_ms: now.unix_ms, token, identity };
        let event = reached.as_ref().map(|(event, _)| event.clone());
        let opened = self.database().write(move |tables| {
            if let Some(sighting) = &sighting {
                tables.put_sighting(sighting, now.unix())?;
            }
            let (id, is_new) = open_or_go_on(tables, &new, now)?;
            let is_reached = match &reached {
                Some((event, uptime_ms)) => {
                    tables.put_stage(mac, Some(id), event, *uptime_ms)?.is_some()
                }
                None => false,
            };
            Ok((id, is_new, is_reached))
        });
        let (id, is_new, is_reached) = opened.await?;
        if is_new {
            self.waits().clear(mac);
            self.ask_earlier_boot(mac);
            tracing::info!(%mac, boot = id, %firmware, "boot started");
            self.look_at_rings().await;
        }
        if let Some(event) = event.filter(|_| is_reached) {
            self.on_stage(mac, id, &event);
        }
        Ok(id)
    }

    /// Whether the firmware of a NIC is at work: it has an address, and no loader yet.
    pub fn is_in_firmware(&self, mac: Mac) -> bool {
        self.boot_of(mac).is_some_and(|boot| is_same_power_on(&boot, mac, self.now()))
    }

    /// A machine has reached a stage of the last boot from this NIC, or of the boot that it names.
    ///
    /// A stage that the boot has reached already, and a boot of another NIC, change nothing. The stage is in
    /// the queue when this returns: stages are stored in the order of the calls. The future tells whether
    /// anything changed.
    ///
    /// # Errors
    /// The database can't be written, or too many changes wait.
    pub fn stage(
        &self,
        mac: Mac,
        boot: Option<BootId>,
        event: NewStage,
    ) -> impl Future<Output = Result<bool, Error>> + Send + use<> {
        let NewStage { stage, detail, uptime_ms } = event;
        let event = StageEvent { stage, at_unix_ms: self.now().unix_ms, detail: clean(&detail) };
        let stored = self.database().write({
            let event = event.clone();
            move |tables| Ok(tables.put_stage(mac, boot, &event, uptime_ms)?)
        });
        let service = self.clone();
        async move {
            let stored = stored.await?;
            if let Some(boot) = stored {
                service.on_stage(mac, boot, &event);
                if event.stage == Stage::Failed {
                    let machine = service.site().machine_by_mac(mac).map(|it| it.name.clone());
                    if let Some(machine) = machine {
                        service.capture_failed(&machine, boot, &event.detail).await;
                    }
                }
                if matches!(event.stage, Stage::Up | Stage::Failed) {
                    service.look_at_rings().await;
                }
            }
            Ok(stored.is_some())
        }
    }

    /// A stage was reached, and is stored.
    fn on_stage(&self, mac: Mac, boot: BootId, event: &StageEvent) {
        let StageEvent { stage, detail, .. } = event;
        if let Some(known) = self.view().boot(mac, boot) {
            self.boot_times().reached(&known.boot, *stage);
        }
        let machine = self.name_or_mac(mac);
        match stage {
            Stage::Failed => tracing::warn!(machine, boot, detail, "boot failed"),
            _ => tracing::info!(machine, boot, detail, "{}", stage.title()),
        }
    }

    /// How long stages of boots took since this process started, each from the one before it.
    pub fn stage_times(&self) -> Vec<(Stage, StageTimes)> {
        self.boot_times().by_stage()
    }

    /// How long boots took since this process started, from the firmware's first packet until the system was up.
    pub fn whole_boot_times(&self) -> StageTimes {
        self.boot_times().whole()
    }

    /// Decides which boot a machine that asks for its configuration is in, and notes what it gets.
    pub(super) async fn prepare_boot(
        &self,
        mac: Mac,
        machine: MachineName,
        version: ImageVersion,
        root: RootKind,
    ) -> Result<Prepared, Error> {
        let wanted = (version.image.clone(), version.version);
        let started_unix_ms = self.now().unix_ms;
        if self.database().locked().is_some() {
            // Who asks once more changes nothing, and needs no database that can be written.
            let wanted = wanted.clone();
            let decided = self
                .database()
                .read(move |tables| decide(tables, mac, &wanted, root, started_unix_ms));
            if let Decided::Known(prepared) = decided.await? {
                return Ok(prepared);
            }
        }
        let (token, identity) = (new_token()?, new_identity()?);
        let prepared = self.database().write(move |tables| {
            let id = match decide(tables, mac, &wanted, root, started_unix_ms)? {
                Decided::Known(prepared) => return Ok(prepared),
                Decided::Assign(id) => id,
                Decided::Open(firmware) => {
                    let new = NewBoot { mac, firmware, started_unix_ms, token, identity };
                    tables.open_boot(&new)?
                }
            };
            tables.assign(mac, id, &machine, &version, root)?;
            Ok(Prepared::Boot(id, false))
        });
        prepared.await
    }
}

/// The boot that firmware is in, and whether it begins.
fn open_or_go_on(
    tables: &Transaction<'_>,
    new: &NewBoot,
    now: Now,
) -> store::Result<(BootId, bool)> {
    let mac = new.mac;
    let last = tables.last_boot(mac)?;
    if let Some(boot) = last.filter(|boot| is_same_power_on(boot, mac, now)) {
        return Ok((boot.id, false));
    }
    if let Some(own) = tables.last_boot_from(mac)? {
        let is_proven = tables.proof(mac, own.id)?.is_some_and(|proof| proof.is_given);
        if !is_proven && tables.begin_too_often(mac, now.unix_ms)? {
            return Ok((own.id, false));
        }
    }
    Ok((tables.open_boot(new)?, true))
}

fn has_reached(boot: &Boot, stage: Stage) -> bool {
    boot.stages.iter().any(|event| event.stage == stage)
}

/// What becomes of a request for a configuration.
enum Decided {
    /// Nothing changes.
    Known(Prepared),
    /// This boot is to get what the machine is given.
    Assign(BootId),
    /// A new boot of this firmware is.
    Open(Firmware),
}

fn decide(
    tables: &Transaction<'_>,
    mac: Mac,
    wanted: &(ImageName, u32),
    root: RootKind,
    now_unix_ms: u64,
) -> store::Result<Decided> {
    let Some(boot) = tables.last_boot_from(mac)? else {
        return Ok(Decided::Known(Prepared::NeverStarted));
    };
    // Whoever is logged in on a machine has its other NICs, too.
    if tables.has_started_beside(mac, boot.id)? {
        return Ok(Decided::Known(Prepared::NeverStarted));
    }
    let is_last = tables.last_boot(mac)?.is_some_and(|last| last.id == boot.id);
    let has = |stage| boot.stages.iter().any(|event| event.stage == stage);
    let is_same = boot.image.as_ref() == Some(wanted) && boot.root == Some(root);
    Ok(match (has(Stage::Config), is_same) {
        (true, true) if is_last => Decided::Known(Prepared::Boot(boot.id, true)),
        (false, _) if is_last => Decided::Assign(boot.id),
        // Its kernel runs: a new boot would throw away the disk under it.
        (true, _) if has(Stage::Start) => Decided::Known(Prepared::Running(Box::new(boot))),
        // Somebody who asks from two NICs in turn begins no more boots than one who asks for addresses.
        (true, true) if tables.begin_too_often(mac, now_unix_ms)? => {
            Decided::Known(Prepared::Boot(boot.id, true))
        }
        (false, _) if tables.begin_too_often(mac, now_unix_ms)? => Decided::Assign(boot.id),
        // It could not load what it was given, and was given something else since; or its firmware has asked from
        // another NIC since, and the loader came from this one.
        _ => Decided::Open(boot.firmware),
    })
}

/// A boot whose last sign lies in the future is another one: the clock was set back.
fn is_same_power_on(boot: &Boot, mac: Mac, now: Now) -> bool {
    let last = boot.current().map_or(boot.started_unix_ms, |event| event.at_unix_ms);
    let is_before_config = boot.stages.iter().all(|event| event.stage < Stage::Config);
    boot.mac == mac && is_before_config && now.unix_ms.abs_diff(last) < SAME_POWER_ON_MS
}

/// A secret that nobody can guess.
pub(super) fn new_token() -> Result<Token, Error> {
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(|_| Error::NoRandomness)?;
    Ok(Token::new(random))
}

/// A number that no other boot has.
fn new_identity() -> Result<BootIdentity, Error> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|_| Error::NoRandomness)?;
    Ok(BootIdentity::new(random))
}

/// Text of a stranger, fit for a log line and a page.
pub(super) fn clean(text: &str) -> String {
    let mut clean = String::new();
    for character in text.chars() {
        let shown = if character.is_control() { ' ' } else { character };
        if clean.len() + shown.len_utf8() > DETAIL_MAX {
            break;
        }
        clean.push(shown);
    }
    clean
}
