//! What in an image hurts a diskless machine, and what is laid over it against that.

use crate::error::{Error, VersionError};
use crate::people::{Admin, Viewer};
use crate::service::Service;
use crate::store::FieldChange;
use images::{FixChoice, Harm};
use initcfg::{Laid, LaidWhat, Overlay};
use model::{ImageName, ImageVersion};
use std::sync::Arc;

/// What hurts in a version, and what is laid over it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct VersionHarms {
    /// The image.
    pub image: ImageName,
    /// The version's number.
    pub version: u32,
    /// What hurts, the worst first; also what is fixed by what is laid over it.
    pub harms: Vec<Harm>,
    /// Checks that could not be made, and why.
    pub not_checked: Vec<NotChecked>,
    /// What is laid over it at each boot.
    pub laid_over: Vec<LaidFile>,
}

/// A check that could not be made.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct NotChecked {
    /// Its name.
    pub check: String,
    /// Why.
    pub why: String,
}

/// What is laid at one path.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct LaidFile {
    /// Where.
    pub path: String,
    /// `file`, `link` or `removed`.
    pub kind: &'static str,
    /// Against which harms.
    pub checks: Vec<String>,
    /// The file's text as it will be, or where the link leads.
    pub content: Option<String>,
}

/// What became of a change of what is laid over a version.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct LaidOver {
    /// What is laid over it from the next boot on.
    pub laid_over: Vec<LaidFile>,
    /// Why its initrd could not be built with that.
    pub initrd_error: Option<String>,
}

impl Viewer {
    /// Looks for what in a version hurts a diskless machine.
    ///
    /// # Errors
    /// There is no such version, or its files can't be read.
    pub async fn version_harms(
        &self,
        image: &ImageName,
        number: u32,
    ) -> Result<VersionHarms, Error> {
        let service = self.service();
        if service.known(image, number)?.is_data() {
            return Err(Error::NoSystem(image.clone()));
        }
        let (store, of) = (Arc::clone(service.store()), image.clone());
        let looked = tokio::task::spawn_blocking(move || {
            Ok::<_, Error>((store.harms(&of, number)?, store.overlay(&of, number)?))
        });
        let (look, overlay) = looked.await.map_err(|_| Error::Stopping)??;
        let not_checked = look.not_checked.into_iter();
        Ok(VersionHarms {
            image: image.clone(),
            version: number,
            harms: look.harms,
            not_checked: not_checked.map(|(check, why)| NotChecked { check, why }).collect(),
            laid_over: laid_files(&overlay),
        })
    }
}

impl Admin {
    /// Lays files over a version against the harms that are chosen, in place of what was laid over it; `None`: nothing is, from
    /// then on. Machines have it from their next boot on.
    ///
    /// # Errors
    /// There is no such version or check, its files can't be read, or image store or database can't be written.
    pub async fn fix_version(
        &self,
        image: &ImageName,
        number: u32,
        choice: Option<FixChoice>,
    ) -> Result<LaidOver, Error> {
        let service = self.service();
        let version = service.known(image, number)?;
        if version.is_data() {
            return Err(Error::NoSystem(image.clone()));
        }
        if let Some(unknown) = choice.as_ref().and_then(FixChoice::unknown) {
            return Err(VersionError::NoCheck(unknown.to_owned()).into());
        }
        let (store, of) = (Arc::clone(service.store()), image.clone());
        let laid = tokio::task::spawn_blocking(move || {
            let only = choice.iter().flat_map(|choice| &choice.only);
            let harms = if only.clone().next().is_some() {
                store.harms(&of, number)?.harms
            } else {
                Vec::new()
            };
            // Who names a check means to add to what is laid, not to take it all away.
            for check in only {
                if !harms.iter().any(|harm| harm.check == *check && harm.can_be_fixed) {
                    let (image, version, check) = (of, number, check.clone());
                    return Err(VersionError::NothingToFix { image, version, check }.into());
                }
            }
            Ok::<_, Error>(store.lay_over(&of, number, choice.as_ref())?)
        });
        let overlay = laid.await.map_err(|_| Error::Stopping)??;
        let paths: Vec<String> = overlay.entries.iter().map(|laid| laid.path.to_string()).collect();
        let change = FieldChange::between("laid_over", None, Some(paths.join(" ")));
        let subject = format!("{image}/v{number}");
        let changes = change.into_iter().collect();
        let entry = self.actor().does("image.fix", &subject, changes, self.now().unix_ms);
        service.database().write(move |tables| Ok(tables.put_audit(&entry)?)).await?;
        let built = service.initrds().laid_over(&version).await;
        tracing::info!(%image, version = number, files = paths.len(), "laid over an image version");
        Ok(LaidOver {
            laid_over: laid_files(&overlay),
            initrd_error: built.err().map(|error| error.chain()),
        })
    }
}

impl Service {
    fn known(&self, image: &ImageName, number: u32) -> Result<ImageVersion, Error> {
        let site = self.site();
        let found = site.version(image, number).cloned();
        found.ok_or_else(|| Error::NoVersion { image: image.clone(), version: number })
    }
}

fn laid_files(overlay: &Overlay) -> Vec<LaidFile> {
    let file = |laid: &Laid| {
        let (kind, content) = match &laid.what {
            LaidWhat::File { content, .. } => {
                ("file", Some(String::from_utf8_lossy(content).into_owned()))
            }
            LaidWhat::Link { target } => ("link", Some(target.clone())),
            LaidWhat::Nothing => ("removed", None),
        };
        LaidFile {
            path: laid.path.to_string(),
            kind,
            checks: laid.about.split(", ").map(str::to_owned).collect(),
            content,
        }
    };
    overlay.entries.iter().map(file).collect()
}
