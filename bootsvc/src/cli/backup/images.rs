//! `bootlace backup images` and `drill`

use super::super::as_job::{Work, as_job, caller};
use super::super::image::leave::send_to;
use super::super::{runtime, say};
use super::kept;
use crate::far::{self, FarServer, Place};
use crate::new_file::{NewFile, is_abandoned, unfinished};
use crate::paths::Paths;
use crate::privileges::{become_command, is_owner};
use crate::scratch;
use anyhow::{Context as _, bail, ensure};
use clap::Args;
use images::{Progress, ReceiveRequest, Received, SendRequest, Store, about_stream, check_stream};
use model::{ImageName, ImageVersion, Size, VersionState};
use service::backup::note_image_backup;
use service::jobs::{JobKind, NewJob};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufReader, BufWriter};
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// How many versions of each image are kept elsewhere, if nobody says that.
const KEPT: usize = 3;

/// Letters of a digest in the name of a file.
const DIGEST_LETTERS: usize = 16;

/// Keep the newest versions of each image on another server, or in a folder
///
/// What is released or to be tested is kept, however old it is. What is there already is not sent again: versions never change. Of a server
/// only what differs is sent. Older ones there are deleted, if they were kept by this command and are drafts still. bootlace status tells when this was not done for 26 hours.
///
/// Example: bootlace backup images https://boot2:8443 --token-file /etc/bootlace/boot2.token --ca /etc/bootlace/boot2.pem
#[derive(Args)]
pub(in crate::cli) struct Images {
    #[command(flatten)]
    there: There,
    /// How many versions of each image are kept there, with those that machines get
    #[arg(long, value_name = "N", default_value_t = KEPT, value_parser = kept)]
    keep: usize,
}

/// Try whether image versions can be restored from there, and how long that takes
///
/// The newest version of each image is received into a folder for this moment, and compared with its digest. Nothing else is changed.
///
/// Example: bootlace backup drill /mnt/backup/images
#[derive(Args)]
pub(in crate::cli) struct Drill {
    #[command(flatten)]
    there: There,
    /// Only this image
    #[arg(long)]
    image: Option<ImageName>,
    /// Where there is room for it; without, where temporary files are
    #[arg(long, value_name = "FOLDER")]
    scratch: Option<PathBuf>,
}

/// Another place.
#[derive(Args)]
struct There {
    /// A folder, or the pages of another Bootlace, like https://boot2:8443
    #[arg(value_name = "WHERE")]
    place: String,
    /// A file with the token of an administrator of that server in its first line
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The authority of that server's certificate, in PEM; without, those that this host trusts
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

enum Target {
    Server(Place),
    Folder(PathBuf),
}

impl There {
    fn target(&self) -> anyhow::Result<Target> {
        if self.place.contains("://") {
            let Some(token_file) = self.token_file.clone() else {
                bail!("a server wants a token of an administrator: name its file by --token-file");
            };
            let server = FarServer { url: self.place.clone(), token_file, ca: self.ca.clone() };
            return Ok(Target::Server(server.place()?));
        }
        let folder = PathBuf::from(&self.place);
        ensure!(
            folder.is_dir(),
            "{0} is neither a folder nor the address of a server: make it first, by mkdir -p {0}",
            self.place
        );
        Ok(Target::Folder(folder))
    }
}

impl Images {
    pub(in crate::cli) fn run(self, paths: &Paths) -> anyhow::Result<()> {
        ensure!(
            is_owner(&paths.state()),
            "that reads all of {}, which only root and the servers' user may: use sudo",
            paths.images().display()
        );
        let by = caller();
        // Token and authority are read by whoever has named them.
        let target = self.there.target()?;
        become_command(paths)?;
        let what = format!("all images to {}", self.there.place);
        let new = NewJob { kind: JobKind::ImageSend, what, by };
        as_job(paths, new, |work| {
            let store = Store::look(&paths.images())?;
            let wanted = to_keep(store.list()?, &store.states()?, self.keep);
            let mut failed = Vec::new();
            for version in wanted.values().flatten() {
                let ImageVersion { image, version: number, .. } = version;
                let done = match &target {
                    Target::Server(place) => {
                        send_to(paths, place, (image, *number), VersionState::Draft, work)
                    }
                    Target::Folder(folder) => save(&store, version, folder, work),
                };
                match done {
                    Ok(told) => work.say(told),
                    // The others are worth it all the same.
                    Err(error) if !work.stop.is_stopping() => {
                        let told = format!("{image}/v{number}: {error:#}");
                        work.note(format!("warning: {told}"));
                        failed.push(told);
                    }
                    Err(error) => return Err(error),
                }
            }
            if !failed.is_empty() {
                bail!(
                    "not all images are kept there, and no old ones were deleted: {}",
                    failed.join("; ")
                );
            }
            match &target {
                Target::Server(place) => delete_there(place, &wanted, self.keep, work)?,
                Target::Folder(folder) => delete_in(folder, &wanted, self.keep, work)?,
            }
            let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |it| it.as_secs());
            note_image_backup(&paths.database(), now)
                .context("the images are kept there, and that is not noted")?;
            let n = wanted.values().flatten().count();
            Ok(format!("{n} versions of {} images are there", wanted.len()))
        })
    }
}

/// What is kept of each image, the oldest first.
type Wanted = BTreeMap<ImageName, Vec<ImageVersion>>;

/// The newest versions of each image, and the newest of each state in which machines get it: after a rollback, or beside drafts, these
/// may be older ones.
fn to_keep(
    versions: Vec<ImageVersion>,
    states: &BTreeMap<(ImageName, u32), VersionState>,
    keep: usize,
) -> Wanted {
    let mut by_image = Wanted::new();
    for version in versions {
        by_image.entry(version.image.clone()).or_default().push(version);
    }
    for versions in by_image.values_mut() {
        versions.sort_by_key(|version| version.version);
        let newest_in = |wanted: VersionState| {
            let state = |it: &&ImageVersion| {
                states.get(&(it.image.clone(), it.version)).copied().unwrap_or_default() == wanted
            };
            versions.iter().rfind(state).map(|it| it.version)
        };
        let given = [VersionState::Released, VersionState::Test].map(newest_in);
        let newest = versions.len().saturating_sub(keep);
        let oldest = versions.get(newest).map_or(u32::MAX, |it| it.version);
        versions.retain(|it| it.version >= oldest || given.contains(&Some(it.version)));
    }
    by_image
}

/// Whether a version with a digest that begins so is one of those that are to be kept.
fn is_wanted(wanted: &Wanted, image: &ImageName, digest: &str) -> bool {
    wanted.get(image).is_some_and(|all| all.iter().any(|it| it.digest.starts_with(digest)))
}

/// A version in a folder: `debian-12.v4.0c49f3dacf6d0748.stream`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Saved {
    image: ImageName,
    version: u32,
    /// How its digest begins.
    digest: String,
    file: String,
}

impl Saved {
    fn name_of(version: &ImageVersion) -> String {
        let ImageVersion { image, version: number, digest, .. } = version;
        format!("{image}.v{number}.{}.stream", &digest[..DIGEST_LETTERS.min(digest.len())])
    }

    fn parse(file: &str) -> Option<Self> {
        let (rest, digest) = file.strip_suffix(".stream")?.rsplit_once('.')?;
        let (image, version) = rest.rsplit_once(".v")?;
        let is_digest = digest.len() == DIGEST_LETTERS
            && digest.bytes().all(|it| it.is_ascii_digit() || (b'a'..=b'f').contains(&it));
        let version = version.parse().ok().filter(|_| is_digest)?;
        let (digest, file) = (digest.to_owned(), file.to_owned());
        Some(Self { image: image.parse().ok()?, version, digest, file })
    }
}

/// All that are in a folder, by image, the oldest first.
fn saved_in(folder: &Path) -> anyhow::Result<BTreeMap<ImageName, Vec<Saved>>> {
    let mut saved: BTreeMap<ImageName, Vec<Saved>> = BTreeMap::new();
    let failed = || format!("can't list {}", folder.display());
    for entry in fs::read_dir(folder).with_context(failed)? {
        let name = entry.with_context(failed)?.file_name();
        if let Some(one) = name.to_str().and_then(Saved::parse) {
            saved.entry(one.image.clone()).or_default().push(one);
        }
    }
    saved.values_mut().for_each(|all| all.sort_by_key(|one| one.version));
    Ok(saved)
}

/// Whether a file is what a version was saved to. Whether all of it can be read is for a drill to say.
fn is_saved(file: &Path, version: &ImageVersion) -> bool {
    let is_file = file.symlink_metadata().is_ok_and(|about| about.is_file());
    let about = || about_stream(BufReader::new(File::open(file).ok()?)).ok();
    is_file && about().is_some_and(|about| about.digest == version.digest && about.at_bytes == 0)
}

fn save(
    store: &Store,
    version: &ImageVersion,
    folder: &Path,
    work: &mut Work,
) -> anyhow::Result<String> {
    let file = folder.join(Saved::name_of(version));
    let ImageVersion { image, version: number, .. } = version;
    if is_saved(&file, version) {
        return Ok(format!("{image}/v{number} is there already"));
    }
    let failed = || format!("can't write {}", file.display());
    let request = SendRequest { image: image.clone(), version: *number, from: None, at_bytes: 0 };
    let mut new = NewFile::create(&file, 0o600).with_context(failed)?;
    let stop = work.stop.clone();
    let mut progress = |it: Progress| work.show("sending", it.done_bytes, it.total_bytes);
    store.send(&request, BufWriter::new(&mut new), &stop, &mut progress)?;
    // What is there in its place is no backup of it.
    if file.symlink_metadata().is_ok_and(|about| !about.is_dir()) {
        work.note(format!("{} is no backup of {image}/v{number}, and is replaced", file.display()));
        fs::remove_file(&file).with_context(failed)?;
    }
    let size = new.put().with_context(failed)?;
    // Before others go.
    let read = BufReader::new(File::open(&file).with_context(failed)?);
    let mut progress = |it: Progress| work.show("comparing", it.done_bytes, it.total_bytes);
    if let Err(error) = check_stream(read, &stop, &mut progress) {
        let _ = fs::remove_file(&file);
        return Err(error)
            .with_context(|| format!("{} was written, and can't be read", file.display()));
    }
    Ok(format!("{image}/v{number} saved: {}", Size(size)))
}

fn delete_in(folder: &Path, wanted: &Wanted, keep: usize, work: &mut Work) -> anyhow::Result<()> {
    for all in saved_in(folder)?.values() {
        for old in &all[..all.len().saturating_sub(keep)] {
            if is_wanted(wanted, &old.image, &old.digest) {
                continue;
            }
            let path = folder.join(&old.file);
            fs::remove_file(&path).with_context(|| format!("can't delete {}", path.display()))?;
            work.say(format!("{}: deleted, as newer ones are there", path.display()));
        }
    }
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let is_ours = unfinished(name).and_then(Saved::parse).is_some();
        if is_ours && is_abandoned(&path) {
            let _ = fs::remove_file(&path);
        }
    }
    Ok(())
}

/// Deletes drafts that are older than those that are to be kept.
fn delete_there(
    place: &Place,
    wanted: &Wanted,
    keep: usize,
    work: &mut Work,
) -> anyhow::Result<()> {
    let runtime = runtime()?;
    let there = far::versions(&runtime, place)?;
    for image in wanted.keys() {
        let mut all: Vec<_> = there.iter().filter(|it| it.version.image == *image).collect();
        all.sort_by_key(|it| it.version.version);
        for old in &all[..all.len().saturating_sub(keep)] {
            if old.state != VersionState::Draft || is_wanted(wanted, image, &old.version.digest) {
                continue;
            }
            let number = old.version.version;
            // Whoever uses it there has said so.
            match far::remove(&runtime, place, image, number) {
                Ok(()) => {
                    work.say(format!("{image}/v{number} deleted there, as newer ones are there"))
                }
                Err(error) => work.note(format!(
                    "note: {image}/v{number} stays there: {:#}",
                    anyhow::Error::from(error)
                )),
            }
        }
    }
    runtime.shutdown_background();
    Ok(())
}

impl Drill {
    pub(in crate::cli) fn run(self, paths: &Paths) -> anyhow::Result<()> {
        let by = caller();
        let target = self.there.target()?;
        if is_owner(&paths.state()) {
            become_command(paths)?;
        }
        let what = format!("as a drill, from {}", self.there.place);
        let new = NewJob { kind: JobKind::ImageReceive, what, by };
        as_job(paths, new, |work| {
            let all = match &target {
                Target::Folder(folder) => in_folder(folder)?,
                Target::Server(place) => on_server(place)?,
            };
            let is_meant =
                |image: &ImageName| self.image.as_ref().is_none_or(|wanted| wanted == image);
            let known: Vec<String> = all.iter().map(|one| one.image.to_string()).collect();
            let all: Vec<_> = all.into_iter().filter(|one| is_meant(&one.image)).collect();
            ensure!(!known.is_empty(), "no image is kept at {}", self.there.place);
            ensure!(
                !all.is_empty(),
                "no version of it is kept at {}, where there are: {}",
                self.there.place,
                known.join(", ")
            );
            let mut failed = Vec::new();
            for one in &all {
                match self.try_one(one, &target, work) {
                    Ok(told) => work.say(told),
                    // What becomes of the others is worth knowing all the same.
                    Err(error) if !work.stop.is_stopping() => {
                        let (image, number) = (&one.image, one.version);
                        let told =
                            format!("{image}/v{number} can't be restored from there: {error:#}");
                        work.note(format!("warning: {told}"));
                        failed.push(told);
                    }
                    Err(error) => return Err(error),
                }
            }
            if !failed.is_empty() {
                bail!(
                    "{} of {} images can't be restored: {}. Delete what is kept of them there: the next backup saves them again",
                    failed.len(),
                    all.len(),
                    failed.join("; ")
                );
            }
            Ok(format!("{} images can be restored from {}", all.len(), self.there.place))
        })?;
        say("Nothing was changed here.");
        Ok(())
    }

    /// Restores a version to a place for this moment. Returns what that was like, in a sentence.
    fn try_one(&self, one: &Kept, target: &Target, work: &mut Work) -> anyhow::Result<String> {
        let first: Vec<PathBuf> = self.scratch.iter().cloned().collect();
        let folder = scratch::folder(one.size_bytes, &first)
            .context("there is no room to try it: name a folder by --scratch")?;
        let store = Store::open(&folder.path().join("images"))?;
        let begun = Instant::now();
        let stop = work.stop.clone();
        let mut progress = |it: Progress| work.show("restoring", it.done_bytes, it.total_bytes);
        let received = match target {
            Target::Folder(folder) => {
                let path = folder.join(&one.file);
                let file =
                    File::open(&path).with_context(|| format!("can't read {}", path.display()))?;
                let request =
                    ReceiveRequest { name: None, state: VersionState::Draft, keeps_partial: false };
                let input = BufReader::new(file);
                store.receive(input, &request, &stop, &mut |_| (), &mut progress)?
            }
            Target::Server(place) => {
                let runtime = runtime()?;
                let which = (&one.image, one.version);
                let fetched = far::fetch(&runtime, place, &store, which, &stop, &mut progress);
                runtime.shutdown_background();
                fetched?
            }
        };
        let Received::New(version) = received else { bail!("it was there before") };
        ensure!(version.digest.starts_with(&one.digest), "another version is in its place");
        let seconds = begun.elapsed().as_secs_f64();
        let rate = version.size_bytes as f64 / 1e6 / seconds.max(0.001);
        Ok(format!(
            "{}/v{}: {} restored in {seconds:.1} s ({rate:.0} MB/s), and its digest is right",
            one.image,
            one.version,
            Size(version.size_bytes)
        ))
    }
}

/// A version that is kept elsewhere.
struct Kept {
    image: ImageName,
    version: u32,
    /// How its digest begins.
    digest: String,
    size_bytes: u64,
    /// Its name in a folder.
    file: String,
}

fn in_folder(folder: &Path) -> anyhow::Result<Vec<Kept>> {
    let mut all = Vec::new();
    for one in saved_in(folder)?.into_values().filter_map(|mut all| all.pop()) {
        // What can't be read is told when it is tried.
        let about =
            File::open(folder.join(&one.file)).ok().and_then(|file| about_stream(file).ok());
        let (digest, size_bytes) =
            about.map(|about| (about.digest, about.size_bytes)).unwrap_or_default();
        let Saved { image, version, file, .. } = one;
        all.push(Kept { image, version, digest, size_bytes, file });
    }
    Ok(all)
}

fn on_server(place: &Place) -> anyhow::Result<Vec<Kept>> {
    let runtime = runtime()?;
    let there = far::versions(&runtime, place);
    runtime.shutdown_background();
    let mut all = BTreeMap::new();
    for far::Listed { version, .. } in there? {
        let ImageVersion { image, version: number, digest, size_bytes, .. } = version;
        let kept =
            Kept { image: image.clone(), version: number, digest, size_bytes, file: String::new() };
        let newest = all.entry(image).or_insert_with(|| (number, None));
        if number >= newest.0 {
            *newest = (number, Some(kept));
        }
    }
    Ok(all.into_values().filter_map(|(_, kept)| kept).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_known_by_their_names() {
        let saved = Saved::parse("debian-12.5.v4.0c49f3dacf6d0748.stream").unwrap();
        assert_eq!((saved.image.as_str(), saved.version), ("debian-12.5", 4));
        for other in [
            "debian.v4.stream",
            "debian.v4.0c49f3dacf6d0748",
            "debian.4.0c49f3dacf6d0748.stream",
            "debian.v4.0C49F3DACF6D0748.stream",
            ".debian.v4.0c49f3dacf6d0748.stream",
            "notes.txt",
        ] {
            assert_eq!(Saved::parse(other), None, "{other}");
        }
    }
    #[test]
    fn what_machines_get_is_kept_however_old_it_is() {
        let versions = |numbers: &[u32]| -> Vec<ImageVersion> {
            let json = |number: &u32| {
                serde_json::json!({
                    "image": "debian", "version": number, "digest": format!("{number:064}"), "size_bytes": 4096,
                    "partition": null, "file_system": "ext4", "kernel_version": "6.1", "os_name": null,
                    "imported_unix": 1,
                })
            };
            numbers.iter().map(|number| serde_json::from_value(json(number)).unwrap()).collect()
        };
        let kept = |states: &[(u32, VersionState)], keep| -> Vec<u32> {
            let image: ImageName = "debian".parse().unwrap();
            let states =
                states.iter().map(|&(number, state)| ((image.clone(), number), state)).collect();
            let kept = to_keep(versions(&[3, 1, 2, 4, 5]), &states, keep);
            kept[&image].iter().map(|it| it.version).collect()
        };
        use VersionState::{Draft, Retired, Test};
        assert_eq!(kept(&[], 2), [4, 5]);
        let gone_back = [(3, Retired), (4, Retired), (5, Retired)];
        assert_eq!(kept(&gone_back, 1), [2, 5]);
        let drafts = [(2, Test), (3, Draft), (4, Draft), (5, Draft)];
        assert_eq!(kept(&drafts, 3), [1, 2, 3, 4, 5]);
        assert_eq!(kept(&drafts, 1), [1, 2, 5]);
    }
}
