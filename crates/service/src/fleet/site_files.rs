//! Files that are laid over machines' roots: those of the site, of rooms, and of machines.

use crate::error::{Error, FilesError, RoomError};
use crate::people::{Admin, Viewer};
use crate::service::Service;
use crate::store::{ChangeError, FieldChange, FileContent, Transaction, Weight};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use initcfg::{LAID_MAX, LaidPath, OVERLAY_MAX};
use model::{
    FileMode, FileOwner, FilesOf, MachineName, RoomName, SiteFile, SiteFileKind, VALUE_MAX,
    fill_template, what_counts,
};

/// What an entry needs in the overlay beside its path and what is in it: its lines, the longest of each.
const ENTRY_BYTES: u64 = 96;

/// By how much the overlay is longer than its entries.
const FRAME_BYTES: u64 = 64;

/// Longest target of a link, as in the kernel.
const TARGET_MAX: usize = 4095;

/// What is to be laid over roots.
#[derive(Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewFile {
    /// On the machines of this room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room: Option<RoomName>,
    /// On this machine; with neither, on all of the site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<MachineName>,
    /// Where: an absolute path.
    pub path: String,
    /// A file with this text comes there; or one of the following three.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// A file with these bytes, in Base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base64: Option<String>,
    /// A symbolic link that leads there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// Nothing: what the image has there is gone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gone: bool,
    /// Permissions; without, those of what is there, or 0644, and 0600 of a secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<FileMode>,
    /// User and group; without, those of what is there, or root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<FileOwner>,
    /// It has placeholders for values of the machine.
    #[serde(default)]
    pub template: bool,
    /// What is in it is never shown again.
    #[serde(default)]
    pub secret: bool,
}

impl std::fmt::Debug for NewFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // What is in it may be a secret.
        write!(f, "NewFile({:?}, {:?}, {})", self.room, self.machine, self.path)
    }
}

impl NewFile {
    /// A file with these bytes.
    pub fn of_bytes(path: impl Into<String>, bytes: &[u8]) -> Self {
        Self { path: path.into(), base64: Some(STANDARD.encode(bytes)), ..Self::default() }
    }
}

/// What is laid at one path of a machine's root.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LaidAt {
    /// What is laid.
    #[serde(flatten)]
    pub file: SiteFile,
    /// What is not, because this counts more: a room's, or the site's.
    pub covers: Vec<SiteFile>,
}

/// A file that is laid, with what is in it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FileRead {
    /// The file.
    #[serde(flatten)]
    pub file: SiteFile,
    /// What is in it, if that is a text and no secret.
    pub text: Option<String>,
    /// The same in Base64.
    pub base64: Option<String>,
}

impl FileRead {
    /// With this content.
    pub fn new(file: SiteFile, content: Option<Vec<u8>>) -> Self {
        let base64 = content.as_ref().map(|content| STANDARD.encode(content));
        let text = content.and_then(|content| String::from_utf8(content).ok());
        Self { file, text, base64 }
    }

    /// All bytes of it; `None`: it is no file, or a secret.
    pub fn bytes(&self) -> Option<Vec<u8>> {
        STANDARD.decode(self.base64.as_ref()?).ok()
    }
}

impl Service {
    /// What is laid over the root of a machine by the site, its room and itself: what counts at each path, by path.
    pub(crate) async fn files_on(
        &self,
        name: &MachineName,
    ) -> Result<Vec<((SiteFile, FileContent), Vec<(SiteFile, FileContent)>)>, Error> {
        let site = self.site();
        let machine = site.machine(name).ok_or_else(|| Error::NoMachine(name.clone()))?;
        let (room, name) = (machine.room.clone(), machine.name.clone());
        let files = self.database().read(move |tables| tables.site_files_for(room.as_ref(), &name));
        let files: Vec<(FilesOf, (SiteFile, FileContent))> =
            files.await?.into_iter().map(|entry| (entry.0.of(), entry)).collect();
        let counts = what_counts(files, |(of, (file, _))| (&file.path, of));
        let strip = |(_, entry)| entry;
        Ok(counts
            .into_iter()
            .map(|(first, covered)| (strip(first), covered.into_iter().map(strip).collect()))
            .collect())
    }
}

impl Viewer {
    /// All files that are laid over roots, without what is in them.
    ///
    /// # Errors
    /// The database can't be read.
    pub async fn site_files(&self) -> Result<Vec<SiteFile>, Error> {
        self.service().database().read(move |tables| tables.site_files()).await
    }

    /// What is laid over the root of a machine, by path, without what is in it.
    ///
    /// # Errors
    /// There is no such machine, or the database can't be read.
    pub async fn files_on_machine(&self, name: &MachineName) -> Result<Vec<LaidAt>, Error> {
        let files = self.service().files_on(name).await?;
        let laid = files.into_iter().map(|((file, _), covers)| LaidAt {
            file,
            covers: covers.into_iter().map(|(file, _)| file).collect(),
        });
        Ok(laid.collect())
    }
}

impl Admin {
    /// What is laid at a path, and what is in it, unless that is a secret.
    ///
    /// # Errors
    /// Nothing is laid there, or the database can't be read.
    pub async fn site_file(
        &self,
        of: FilesOf,
        path: String,
    ) -> Result<(SiteFile, FileContent), Error> {
        let read = {
            let (of, path) = (of.clone(), path.clone());
            self.service().database().read(move |tables| tables.site_file(&of, &path))
        };
        let found = read.await?.ok_or(FilesError::Missing { of, path })?;
        let (file, content) = found;
        let content = content.filter(|_| !file.secret);
        Ok((file, content))
    }

    /// Lays a file over machines' roots, in place of the one at its path, from their next boot on. Returns it, and whether there
    /// was none.
    ///
    /// # Errors
    /// It can't be laid, would be too much, or the database can't be written.
    pub async fn put_site_file(&self, new: NewFile) -> Result<(SiteFile, bool), Error> {
        let now = self.now();
        let actor = self.shared_actor();
        let (file, content) = checked(new, actor.name(), now.unix_ms / 1000)?;
        let written = self.service().database().write(move |tables| {
            must_be(tables, &file.of())?;
            let former = tables.site_file(&file.of(), &file.path)?.map(|(former, _)| former);
            tables.put_site_file(&file, content.as_deref())?;
            check_weight(tables)?;
            let changes = changes(former.as_ref(), Some(&file));
            let subject = subject(&file.of(), &file.path);
            let action = if former.is_some() { "files.set" } else { "files.add" };
            tables.put_audit(&actor.does(action, &subject, changes, now.unix_ms))?;
            Ok((file, former.is_none()))
        });
        let (file, is_new) = written.await?;
        tracing::info!(path = file.path, of = %file.of(), "file laid over");
        Ok((file, is_new))
    }

    /// Lays nothing there any more. From their next boot on machines have again what their image has.
    ///
    /// # Errors
    /// Nothing is laid there, or the database can't be written.
    pub async fn remove_site_file(&self, of: FilesOf, path: String) -> Result<(), Error> {
        let (actor, now_unix_ms) = (self.shared_actor(), self.now().unix_ms);
        let written = self.service().database().write(move |tables| {
            let Some((former, _)) = tables.site_file(&of, &path)? else {
                return Err(Error::from(FilesError::Missing { of, path }).into());
            };
            tables.delete_site_file(&of, &path)?;
            let changes = changes(Some(&former), None);
            let subject = subject(&of, &path);
            tables.put_audit(&actor.does("files.remove", &subject, changes, now_unix_ms))?;
            Ok((of, path))
        });
        let (of, path) = written.await?;
        tracing::info!(path, %of, "file laid over no more");
        Ok(())
    }
}

/// What the audit log says of a change. What is in a file does not stand there, but that it is another one.
fn changes(old: Option<&SiteFile>, new: Option<&SiteFile>) -> Vec<FieldChange> {
    // Who and when stand in each entry.
    let mut changes = FieldChange::all(old, new);
    changes.retain(|change| {
        !["changed_unix", "changed_by", "path", "room", "machine"].contains(&change.field.as_str())
    });
    if let (Some(_), Some(SiteFile { secret: true, .. })) = (old, new) {
        let new = Some("another secret".to_owned());
        changes.push(FieldChange { field: "content".to_owned(), old: None, new });
    }
    changes
}

/// How a file is called in the audit log.
fn subject(of: &FilesOf, path: &str) -> String {
    match of {
        FilesOf::Site => path.to_owned(),
        of => format!("{path} of {of}"),
    }
}

/// Room or machine must be there.
pub(super) fn must_be(tables: &Transaction<'_>, of: &FilesOf) -> Result<(), ChangeError> {
    match of {
        FilesOf::Site => {}
        FilesOf::Room(room) => {
            let found = tables.room(room)?;
            found.ok_or_else(|| Error::from(RoomError::NoRoom(room.clone())))?;
        }
        FilesOf::Machine(machine) => {
            let found = tables.machine(machine)?;
            found.ok_or_else(|| Error::NoMachine(machine.clone()))?;
        }
    }
    Ok(())
}

/// Whatever machine is moved to whatever room, what is laid over its root fits.
fn check_weight(tables: &Transaction<'_>) -> Result<(), ChangeError> {
    let weights = tables.weights_of_site_files(ENTRY_BYTES, VALUE_MAX as u64)?;
    let (mut most, mut most_bytes) = ([0; 3], [0; 3]);
    for Weight { of, n, n_bytes } in &weights {
        let level = match of {
            FilesOf::Site => 0,
            FilesOf::Room(_) => 1,
            FilesOf::Machine(_) => 2,
        };
        most[level] = u64::max(most[level], *n);
        most_bytes[level] = u64::max(most_bytes[level], *n_bytes);
    }
    let n_bytes = FRAME_BYTES + most_bytes.iter().sum::<u64>();
    if n_bytes > OVERLAY_MAX as u64 {
        return Err(Error::from(FilesError::TooMuch { n_bytes }).into());
    }
    let n = most.iter().sum();
    if n > LAID_MAX as u64 {
        return Err(Error::from(FilesError::TooMany { n }).into());
    }
    let n_bytes = weights.iter().map(|weight| weight.n_bytes).sum();
    if n_bytes > FilesError::ALL_MAX {
        return Err(Error::from(FilesError::TooMuchInAll { n_bytes }).into());
    }
    Ok(())
}

/// What is to be laid, as it is stored, and what is in it.
fn checked(
    new: NewFile,
    who: &str,
    now_unix: u64,
) -> Result<(SiteFile, Option<Vec<u8>>), FilesError> {
    let NewFile { room, machine, path, text, base64, link, gone, mode, owner, template, secret } =
        new;
    if room.is_some() && machine.is_some() {
        return Err(FilesError::TwoOwners);
    }
    let Some(path) = LaidPath::new(&path) else {
        return Err(FilesError::BadPath(path.chars().take(256).collect()));
    };
    let content = match (text, base64) {
        (Some(_), Some(_)) => return Err(FilesError::NotOneThing),
        (Some(text), None) => Some(text.into_bytes()),
        (None, Some(base64)) => {
            Some(STANDARD.decode(base64.trim()).map_err(|_| FilesError::NotBase64)?)
        }
        (None, None) => None,
    };
    let kind = match (&content, &link, gone) {
        (Some(_), None, false) => SiteFileKind::File,
        (None, Some(_), false) => SiteFileKind::Link,
        (None, None, true) => SiteFileKind::Gone,
        _ => return Err(FilesError::NotOneThing),
    };
    if kind != SiteFileKind::File && (mode.is_some() || owner.is_some() || template || secret) {
        return Err(FilesError::NotAFile);
    }
    if let Some(target) = &link
        && (target.is_empty() || target.len() > TARGET_MAX || target.chars().any(char::is_control))
    {
        return Err(FilesError::BadTarget);
    }
    if template {
        let text = std::str::from_utf8(content.as_deref().unwrap_or_default());
        let text = text.map_err(|_| FilesError::TemplateNotText)?;
        fill_template(text, |_| String::new())?;
    }
    let shown = content.as_ref().filter(|_| !secret);
    let file = SiteFile {
        room,
        machine,
        path: path.to_string(),
        kind,
        target: link,
        size_bytes: content.as_ref().map(|content| content.len() as u64),
        digest: shown.map(|content| blake3::hash(content).to_hex().to_string()),
        mode: mode.or(if secret { FileMode::new(0o600) } else { None }),
        owner,
        template,
        secret,
        changed_unix: now_unix,
        changed_by: who.to_owned(),
    };
    Ok((file, content))
}
