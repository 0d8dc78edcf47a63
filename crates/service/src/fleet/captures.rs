//! PCs that are captured: the next boot of a machine sends what is on its own disks, and that becomes a version of an image.

use super::machines::check_architecture;
use crate::error::{CaptureError, Error};
use crate::people::{Admin, Viewer};
use crate::service::Service;
use crate::store::FieldChange;
use initcfg::CaptureOrder;
use model::{
    Architecture, BootId, Capture, Follows, ImageChoice, ImageName, ImageVersion, Machine,
    MachineName, VersionState, is_note,
};

/// A PC that somebody wants to capture.
#[derive(Clone, Debug)]
pub struct NewCapture {
    /// The image of which it becomes a version.
    pub image: ImageName,
    /// The machine.
    pub machine: MachineName,
    /// Whose kernel runs meanwhile; `None`: that of the machine's own image, or else of the newest one of all.
    pub with: Option<ImageChoice>,
    /// What init is told.
    pub order: CaptureOrder,
    /// What people want to remember about the version.
    pub note: Option<String>,
    /// For whom the version is.
    pub state: VersionState,
    /// Whether files are laid over the version against what hurts in it.
    pub fixes: bool,
}

/// What is captured where.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct CaptureView {
    /// The machine.
    pub machine: MachineName,
    /// What becomes of it.
    #[serde(flatten)]
    pub capture: Capture,
}

impl Viewer {
    /// Machines that are to be captured, or send.
    pub fn captures(&self) -> Vec<CaptureView> {
        let site = self.service().site();
        let view = |machine: &Machine| {
            let capture = machine.capture.clone()?;
            Some(CaptureView { machine: machine.name.clone(), capture })
        };
        site.machines.iter().filter_map(view).collect()
    }
}

impl Admin {
    /// Has the next boot of a machine send what is on its own disks.
    ///
    /// # Errors
    /// There is no such machine, something else goes on there, or there is no kernel for it.
    pub async fn begin_capture(&self, wanted: NewCapture) -> Result<CaptureView, Error> {
        let NewCapture { image, machine: name, with, order, note, state, fixes } = wanted;
        if !note.as_deref().is_none_or(is_note) {
            return Err(Error::BadNote);
        }
        let service = self.service();
        let site = service.site();
        let machine = site.machine(&name).ok_or_else(|| Error::NoMachine(name.clone()))?;
        let with = service.kernel_for(machine, with.as_ref())?;
        service.check_boots(&with)?;
        if machine.edit.is_some() {
            return Err(CaptureError::Edited(name).into());
        }
        service.delete_left_disk(&name).await?;
        if service.written_disk(&name).await?.is_some() {
            return Err(CaptureError::HasDisk(name).into());
        }
        let (actor, now) = (self.shared_actor(), self.now());
        let by = self.actor().name().to_owned();
        let (with, with_version) = (with.image, with.version);
        let since_unix = now.unix();
        let capture = Capture {
            image,
            with,
            with_version,
            order,
            note,
            state,
            fixes,
            by,
            since_unix,
            boot: None,
        };
        let wanted = capture.clone();
        let stored = service.database().write(move |tables| {
            let machine = tables.machine(&name)?.ok_or_else(|| Error::NoMachine(name.clone()))?;
            if let Some(Capture { image, by, .. }) = machine.capture {
                let begun = CaptureError::Begun { machine: name, image, by };
                return Err(Error::from(begun).into());
            }
            check_architecture(tables, &machine, Some(&wanted.choice()))?;
            // A machine that an older Bootlace has added has no place yet, beside which it stands.
            tables.put_machine(&machine, now.unix())?;
            tables.put_capture(&name, &wanted)?;
            let told = format!("as {}: {}", wanted.image, wanted.order);
            let change = FieldChange { field: "capture".to_owned(), old: None, new: Some(told) };
            tables.put_audit(&actor.does("image.capture", &name, vec![change], now.unix_ms))?;
            Ok(name)
        });
        let machine = stored.await?;
        service.initrds().look_again();
        tracing::info!(%machine, image = %capture.image, "its next boot sends what is on its disks");
        Ok(CaptureView { machine, capture })
    }

    /// Has a machine boot as usual after all.
    ///
    /// # Errors
    /// It is not to be captured, or it sends already.
    pub async fn cancel_capture(&self, name: &MachineName) -> Result<CaptureView, Error> {
        let site = self.service().site();
        let machine = site.machine(name).ok_or_else(|| Error::NoMachine(name.clone()))?;
        let capture = machine.capture.clone().ok_or_else(|| CaptureError::None(name.clone()))?;
        if capture.boot.is_some() {
            return Err(CaptureError::Sends(name.clone()).into());
        }
        let entry = self.actor().does("image.no-capture", name, Vec::new(), self.now().unix_ms);
        let machine = name.clone();
        let ended = self.service().database().write(move |tables| {
            tables.put_audit(&entry)?;
            Ok(tables.delete_capture(&machine)?)
        });
        ended.await?;
        Ok(CaptureView { machine: name.clone(), capture })
    }
}

impl Service {
    /// Whose kernel runs on a machine that is captured.
    fn kernel_for(
        &self,
        machine: &Machine,
        wanted: Option<&ImageChoice>,
    ) -> Result<ImageVersion, Error> {
        let site = self.site();
        if let Some(wanted) = wanted {
            if let Some(version) = site.chosen(wanted) {
                return Ok(version.clone());
            }
            let image = wanted.image.clone();
            return Err(match wanted.follows {
                Follows::Version(version) => Error::NoVersion { image, version },
                Follows::Released | Follows::Test => {
                    let known = site.images.iter().map(|version| version.image.clone()).collect();
                    Error::NoImage { image, known }
                }
            });
        }
        let is = self.boot_of(machine.mac).and_then(|boot| boot.firmware.architecture());
        let is = is.unwrap_or(Architecture::X86_64);
        let own = site.chosen_for(machine).filter(|version| version.architecture == is);
        let released = site.systems_by_image().filter_map(|versions| {
            let image = versions.first()?.image.clone();
            site.chosen(&ImageChoice { image, follows: Follows::Released })
        });
        let fitting = released.filter(|version| version.architecture == is);
        let found = own.or_else(|| fitting.max_by_key(|version| version.imported_unix));
        found.cloned().ok_or_else(|| CaptureError::NoKernel(machine.name.clone()).into())
    }

    /// The machine is not captured any more: it boots as usual from its next boot on. With a boot only if that is the one that sends, or
    /// none does.
    pub(crate) async fn end_capture(
        &self,
        name: &MachineName,
        boot: Option<BootId>,
    ) -> Result<Option<Capture>, Error> {
        let name = name.clone();
        let ended = self.database().write(move |tables| {
            let capture = tables.machine(&name)?.and_then(|machine| machine.capture);
            let is_its = |capture: &Capture| capture.boot.is_none() || capture.boot == boot;
            let Some(capture) = capture.filter(|it| boot.is_none() || is_its(it)) else {
                return Ok(None);
            };
            tables.delete_capture(&name)?;
            Ok(Some(capture))
        });
        ended.await
    }
}
