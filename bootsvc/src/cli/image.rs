//! `bootlace image …`

mod build;
mod capture;
mod data;
mod edit;
mod files;
mod harms;
pub(super) mod leave;
mod list;
pub(super) mod receive;
mod rings;
mod shell;
mod versions;

pub(super) use self::build::build_ordered;
use self::build::{build, show_recipes};
pub(super) use self::edit::publish_ordered;
use self::files::Files;
use self::harms::{WhichVersion, check, fix, said_of};
pub(super) use self::list::REPAIR;
use self::list::list;
use self::rings::RingCommand;
pub(super) use self::versions::warn_of_nothing;
use self::versions::{NamedVersion, changes, new_state, number, remove, roll_back, set, set_note};
use super::advise;
use super::as_job::{Work, as_job, caller, word};
use super::verify::{Which, verify};
use crate::boot_socket::{IMAGES, NewVersion, Recorded};
use crate::builder::worker;
use crate::paths::Paths;
use crate::privileges::{become_command, become_command_with_readers, is_owner};
use crate::site::{Refused, Site, connect};
use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use images::{FixChoice, Import, ImportError, ImportRequest, Progress, Source, Store};
use model::{ImageName, ImageVersion, MachineName, RoomName, Size, VersionState, binary_size};
use service::jobs::{JobKind, NewJob};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// What is said of a new version.
#[derive(Args)]
pub(super) struct AboutNew {
    /// A remark about this version, for people
    #[arg(long)]
    note: Option<String>,
    /// For whom it is: released, test (machines that follow NAME/test) or draft (nobody yet)
    #[arg(long, value_name = "STATE", default_value_t, value_parser = new_state)]
    state: VersionState,
}

#[derive(Subcommand)]
pub(super) enum Image {
    /// Import a disk, or a system's files, as the next version of an image
    ///
    /// FILE is a raw, qcow2, vmdk, vhdx, vhd or vdi disk, or a block device, with a Linux on
    /// ext4, XFS, btrfs, SquashFS or EROFS: the whole disk, one of its partitions or a logical volume. Or it is a tar archive of a system's files (packed by gzip, xz or
    /// zstd perhaps), a folder with them, or - for an archive on standard input: a disk is made of them.
    /// It is copied; an import that fails leaves nothing behind.
    ///
    /// Examples: bootlace image import debian-12.qcow2 --name debian-12
    ///           ssh root@pc tar -C / --one-file-system -c . | bootlace image import - --name golden
    #[command(verbatim_doc_comment)]
    Import {
        /// The disk, archive or folder, or -
        file: PathBuf,
        /// Name of the image, like debian-12
        #[arg(long)]
        name: ImageName,
        /// Size of the disk that is made of files, like 20G [default: 16G]; it takes what the files take
        #[arg(long, value_name = "SIZE", value_parser = disk_size)]
        size: Option<u64>,
        #[command(flatten)]
        about: AboutNew,
        /// Lay files over it against what would hurt a diskless machine
        ///
        /// The version itself stays as it is: see bootlace image fix.
        #[arg(long)]
        fix: bool,
        /// It is no system, but a file system that machines have beside their roots: see bootlace disk
        #[arg(long, conflicts_with = "fix")]
        data: bool,
    },
    New(data::New),
    /// Tell what in a version hurts a diskless machine, and what helps
    ///
    /// Files are read out of it, and nothing is changed. What Bootlace deals with by itself at each boot is only counted.
    ///
    /// Example: bootlace image check debian-12/v4
    Check {
        /// An image, like debian-12, of which the newest version that machines get is looked at; or a version, like debian-12/v4
        version: WhichVersion,
        /// Tell what Bootlace deals with by itself, too
        #[arg(long)]
        all: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Lay files over a version at each boot, against what would hurt a diskless machine
    ///
    /// The version itself stays as it is. Each call says anew what is laid over it: without options, all that helps. On a disk that
    /// is kept, what somebody has changed there stays so.
    ///
    /// Example: bootlace image fix debian-12 --except cloud-init
    Fix {
        /// An image, like debian-12, whose newest version that machines get is meant; or a version, like debian-12/v4
        version: WhichVersion,
        /// Only against what this check has found; may be repeated
        #[arg(long, value_name = "CHECK")]
        only: Vec<String>,
        /// Not against what this check has found; may be repeated
        #[arg(long, value_name = "CHECK")]
        except: Vec<String>,
        /// Lay nothing over it any more
        #[arg(long, conflicts_with_all = ["only", "except"])]
        none: bool,
    },
    /// Build an image of packages, by a recipe
    ///
    /// A new system is installed in a folder of its own, with packages of the distribution, and becomes the next version of
    /// an image. Packages are kept for the next time. Needs root, and the program mmdebstrap.
    ///
    /// Example: bootlace image build --recipe debian-12-desktop --set keyboard=de --set autologin=pupil
    Build {
        /// A recipe that comes along (bootlace image recipes lists them), or a file, like ./school.toml
        #[arg(long, value_name = "NAME|FILE")]
        recipe: String,
        /// Name of the image [default: that of the recipe]
        #[arg(long)]
        name: Option<ImageName>,
        /// Choose a parameter of the recipe, like keyboard=de; once for each
        #[arg(long, value_name = "PARAMETER=VALUE", value_parser = build::setting)]
        set: Vec<(String, String)>,
        /// Install this package of Debian as well; may be repeated
        #[arg(long, value_name = "NAME")]
        package: Vec<String>,
        /// Whence packages come, like http://deb.debian.org/debian
        #[arg(long, value_name = "URL")]
        mirror: Option<String>,
        /// Size of the disk, like 20G [default: what the recipe says]; it takes what the files take
        #[arg(long, value_name = "SIZE", value_parser = disk_size)]
        size: Option<u64>,
        #[command(flatten)]
        about: AboutNew,
    },
    /// List the recipes that come along, and what may be chosen in them
    ///
    /// Example: bootlace image recipes debian-12-desktop > room-204.toml
    Recipes {
        /// Print this one, as a beginning for a recipe of your own
        name: Option<String>,
    },
    /// Make a system of packages, as bootlace image build tells on standard input
    #[command(hide = true)]
    BuildWorker {
        /// Take orders for recipes that come along, and no others
        #[arg(long)]
        named_only: bool,
    },
    Capture(capture::Capture),
    Edit(edit::Edit),
    Publish(edit::Publish),
    Discard(edit::Discard),
    Shell(shell::OpenShell),
    /// Start a container in a copy of an image, as bootlace image shell tells on standard input
    #[command(hide = true)]
    ShellWorker,
    /// Make a version what machines get at their next boot
    ///
    /// Machines with the image NAME boot the newest version of it that is released; those with NAME/test the newest that is released
    /// or to be tested; those with NAME/v3 just that version. Those that run keep what they have booted.
    ///
    /// With --ring, only the room ROOM gets it at first. All get it by itself when each machine there was up with it once, and ten boots
    /// were in at most 1.3 times the usual time; two boots that fail by the image's fault take it back. See bootlace image ring.
    ///
    /// Examples: bootlace image release debian-12/v4
    ///           bootlace image release debian-12/v4 --ring r101
    #[command(verbatim_doc_comment)]
    Release {
        /// Image and version, like debian-12/v4
        version: NamedVersion,
        /// Have this room try it first
        #[arg(long, value_name = "ROOM")]
        ring: Option<RoomName>,
        /// Don't wait for this machine of the room, such as one that is being repaired; may be repeated
        #[arg(long, value_name = "MACHINE", requires = "ring")]
        without: Vec<MachineName>,
    },
    /// See and end what rooms try, as bootlace image release --ring has begun
    Ring {
        #[command(subcommand)]
        what: RingCommand,
    },
    /// Give a version to machines that follow what is to be tested, by the image NAME/test
    Test {
        /// Image and version, like debian-12/v4
        version: NamedVersion,
    },
    /// Make a version a draft again, which is for nobody but machines that are told to boot just that one
    Draft {
        /// Image and version, like debian-12/v4
        version: NamedVersion,
    },
    /// Say something else about a version, for people; the version itself stays as it is
    ///
    /// Example: bootlace image note debian-12/v4 "with LibreOffice 24"
    Note {
        /// Image and version, like debian-12/v4
        version: NamedVersion,
        /// The remark, one line; an empty one takes it away
        note: String,
    },
    /// Take a version from machines, but for those that are told to boot just that one
    Retire {
        /// Image and version, like debian-12/v4
        version: NamedVersion,
    },
    /// Tell what differs between a version and the one before: kernel and packages
    ///
    /// Packages are those of Debian and its kin (dpkg).
    ///
    /// Example: bootlace image changes debian-12/v4 --since 2
    Changes {
        /// Image and version, like debian-12/v4
        version: NamedVersion,
        /// Compare it with this version, like 2
        #[arg(long, value_name = "VERSION", value_parser = number)]
        since: Option<u32>,
        /// Compare their files by size and time, too: those that make most of the difference. Reads all folders of both
        #[arg(long)]
        files: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Go back: machines get the newest version that was released before
    ///
    /// What is newer and released is retired. What was taken back earlier is passed over, unless --to names it. Says which machines
    /// still run the other one. It is of released versions: one that is to be tested is taken back by `bootlace image retire`.
    ///
    /// Example: bootlace image rollback debian-12
    Rollback {
        /// The image
        name: ImageName,
        /// Go back to this version, like 3, though it may be retired
        #[arg(long, value_name = "VERSION", value_parser = number)]
        to: Option<u32>,
    },
    /// Remove a version that nobody needs
    ///
    /// Says how much room it frees, and asks. A version that machines boot, run, are told to boot or have made a disk on is not
    /// removed.
    #[command(aliases = ["delete", "remove"])]
    Rm {
        /// Image and version, like debian-12/v2
        version: NamedVersion,
        /// Don't ask
        #[arg(long)]
        yes: bool,
    },
    /// Read versions as a whole, and compare them with what was imported
    ///
    /// Disks rot without a word, and nobody reads all of an image for months. What has changed is printed, is told by
    /// bootlace status from then on, and makes this command fail. Importing the same disk again puts it back. Versions that
    /// were read longest ago come first; who stops it goes on there the next time.
    ///
    /// Example: bootlace image verify --older-than 7
    Verify {
        /// Images, like debian-12, or versions, like debian-12/v3; all without
        which: Vec<Which>,
        /// Only versions that were not read in the last so many days
        #[arg(long, value_name = "DAYS")]
        older_than: Option<u32>,
    },
    Export(leave::Export),
    Send(leave::Send),
    Receive(receive::Receive),
    /// List images and their versions
    #[command(alias = "list")]
    Ls {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

impl Image {
    pub(super) fn run(self, paths: &Paths) -> anyhow::Result<()> {
        match self {
            Self::New(new) => new.run(paths),
            Self::Import { file, name, size, about: AboutNew { note, state }, fix, data } => {
                // As root, who may read it, and sees whether a program writes to it.
                let (source, files) = files::open(&file, &paths.unshared())?;
                let fix = fix.then(FixChoice::default);
                let (disk_bytes, is_data) = (size, data);
                let request = ImportRequest { source, disk_bytes, name, note, state, fix, is_data };
                // The boot server is to see who has called, and not who this process becomes.
                let (server, by) = (connect(paths)?, caller());
                become_command_with_readers(paths)?;
                import(paths, server, request, files, by)
            }
            Self::Build { recipe, name, set, package, mirror, size, about } => {
                build(paths, build::Wanted { recipe, name, set, package, mirror, size, about })
            }
            Self::Recipes { name } => show_recipes(name.as_deref()),
            Self::BuildWorker { named_only } => worker::work(paths, named_only),
            Self::Verify { which, older_than } => {
                let by = caller();
                become_command(paths)?;
                verify(paths, &which, older_than, by)
            }
            Self::Check { version, all, json } => check(paths, version, all, json),
            Self::Fix { version, only, except, none } => {
                let (only, except) = (only.into_iter().collect(), except.into_iter().collect());
                let choice = FixChoice { only, except };
                fix(paths, version, (!none).then_some(&choice))
            }
            Self::Release { version, ring: None, .. } => {
                set(paths, &version, VersionState::Released)
            }
            Self::Release { version, ring: Some(room), without } => {
                rings::begin(paths, &version, &room, &without)
            }
            Self::Ring { what } => what.run(paths),
            Self::Capture(capture) => capture.run(paths),
            Self::Edit(edit) => edit.run(paths),
            Self::Publish(publish) => publish.run(paths),
            Self::Discard(discard) => discard.run(paths),
            Self::Shell(shell) => shell.run(paths),
            Self::ShellWorker => std::process::exit(crate::shell::work()),
            Self::Test { version } => set(paths, &version, VersionState::Test),
            Self::Draft { version } => set(paths, &version, VersionState::Draft),
            Self::Note { version, note } => set_note(paths, &version, &note),
            Self::Retire { version } => set(paths, &version, VersionState::Retired),
            Self::Changes { version, since, files, json } => {
                changes(paths, &version, since, files, json)
            }
            Self::Rollback { name, to } => roll_back(paths, &name, to),
            Self::Rm { version, yes } => remove(paths, &version, yes),
            Self::Export(export) => export.run(paths),
            Self::Send(send) => send.run(paths),
            Self::Receive(receive) => receive.run(paths),
            Self::Ls { json } => list(paths, json),
        }
    }
}

/// What is to be imported, which is opened for it.
pub(super) fn request(
    file: &Path,
    name: ImageName,
    note: Option<String>,
    state: VersionState,
    fixes: bool,
) -> anyhow::Result<ImportRequest> {
    let source =
        Source::open(file).with_context(|| format!("{} was not imported", file.display()))?;
    let fix = fixes.then(FixChoice::default);
    Ok(ImportRequest { source, disk_bytes: None, name, note, state, fix, is_data: false })
}

/// `20G`: what a disk may have.
fn disk_size(text: &str) -> Result<u64, String> {
    binary_size(text).ok_or_else(|| "write it as 20G, with M, G or T".to_owned())
}

fn import(
    paths: &Paths,
    server: Option<UnixStream>,
    request: ImportRequest,
    files: Option<Files>,
    by: String,
) -> anyhow::Result<()> {
    check_owner(paths)?;
    let what = format!("{} from {}", request.name, request.source.path().display());
    let new = NewJob { kind: JobKind::ImageImport, what, by };
    let (image, state, is_data) = (request.name.clone(), request.state, request.is_data);
    as_job(paths, new, |work| {
        let imported = import_now(paths, server, &request, work);
        // Whoever writes an archive goes on until nobody reads it any more.
        drop(request);
        // Why it was cut off is known by whoever has written it.
        match files.and_then(Files::end) {
            Some(why) if imported.is_err() && !work.stop.is_stopping() => bail!(why),
            _ => imported,
        }
    })?;
    say_next(paths, &image, state, is_data);
    Ok(())
}

/// Whether this process may write to the image store.
fn check_owner(paths: &Paths) -> anyhow::Result<()> {
    if !is_owner(&paths.state()) {
        bail!(
            "this writes to {}, which only root and the servers' user may: use sudo",
            paths.images().display()
        );
    }
    Ok(())
}

/// What people do after an import.
fn say_next(paths: &Paths, image: &ImageName, state: VersionState, is_data: bool) {
    let next = match state {
        VersionState::Released if is_data => {
            format!("Next: bootlace disk put NAME --image {image} --mount /FOLDER")
        }
        VersionState::Released => format!(
            "Next: bootlace machine set NAME --mac MAC --image {image}, or adopt a machine on the web page."
        ),
        VersionState::Test => format!(
            "Machines that follow {image}/test get it: bootlace image ls shows what machines get, and bootlace image release makes it \
             what all get."
        ),
        state => format!(
            "It is for nobody yet ({state}): bootlace image ls shows what machines get, and bootlace image release makes it \
             what they get."
        ),
    };
    advise(paths, &next);
}

/// Returns what became of it, in a sentence.
pub(super) fn import_now(
    paths: &Paths,
    server: Option<UnixStream>,
    request: &ImportRequest,
    work: &mut Work,
) -> anyhow::Result<String> {
    if server.is_none() {
        // Whoever opens the state tells the store which numbers were given out, if that was lost with the versions.
        drop(Site::enter(paths, None)?);
    }
    // In the store as root's commands and the servers share it: a version is there when it is complete.
    let store = Store::open(&paths.images())?;
    let stop = work.stop.clone();
    let imported = store.import(request, &stop, &mut |progress: Progress| {
        work.show(word(progress.step), progress.done_bytes, progress.total_bytes);
    });
    let about = Asked {
        source: request.source.path(),
        note: request.note.as_deref(),
        state: request.state,
        fixes: request.fix.is_some(),
        published_from: None,
    };
    after_import(paths, server, &store, &about, imported, work)
}

/// What was asked for of a version that was made.
struct Asked<'a> {
    source: &'a Path,
    note: Option<&'a str>,
    state: VersionState,
    fixes: bool,
    /// The machine on which it was made.
    published_from: Option<&'a MachineName>,
}

/// Has machines get a version that was made, and tells of it.
fn after_import(
    paths: &Paths,
    server: Option<UnixStream>,
    store: &Store,
    asked: &Asked<'_>,
    imported: Result<Import, ImportError>,
    work: &mut Work,
) -> anyhow::Result<String> {
    let &Asked { source, note, state: wanted, fixes, published_from } = asked;
    let new = |image: &ImageName, version| NewVersion {
        image: image.clone(),
        version,
        published_from: published_from.cloned(),
    };
    let Import { version, put_back, passed_over, warnings, left_out, is_signed, harms, laid_over } =
        match imported {
            Ok(import) => import,
            Err(error) => {
                if let ImportError::SameAsNewest { image, version } = &error {
                    // The command that imported it may have been ended before it was recorded.
                    record(paths, server, &new(image, *version))?;
                    let note = if note.is_some() { ". Its note is what it was" } else { "" };
                    let state = store.states()?.get(&(image.clone(), *version)).copied();
                    let fix = match fixes {
                        true => {
                            format!(". To lay files over it: bootlace image fix {image}/v{version}")
                        }
                        false => String::new(),
                    };
                    let told = format!(
                        "nothing to do: {error}{note}{}{fix}",
                        said_of_state(image, *version, state, wanted)
                    );
                    work.say(&told);
                    return Ok(told);
                }
                let source = source.display();
                return Err(error).with_context(|| match published_from {
                    Some(_) => format!("{source} was not published"),
                    None => format!("{source} was not imported"),
                });
            }
        };
    work.show("building its initrd", 0, 1);
    let recorded = record(paths, server, &new(&version.image, version.version))?;
    let told = match published_from {
        Some(machine) => format!(
            "{}: version {} made of what {machine} has changed: kernel {}",
            version.image, version.version, version.kernel_version
        ),
        None => said_of_import(&version, &put_back),
    };
    work.say(&told);
    if note.is_some() && !put_back.is_empty() {
        work.say("Its note is what it was.");
    }
    for warning in &warnings {
        work.say(format!("warning: {warning}"));
    }
    if !is_signed && !version.is_data() {
        work.say("note: its kernel has no signature, so PCs with Secure Boot can't start it");
    }
    let named = format!("{}/v{}", version.image, version.version);
    for line in said_of(&harms, &laid_over, &named) {
        work.say(line);
    }
    for left_out in &left_out {
        work.say(format!("left out: {left_out}"));
    }
    for passed_over in &passed_over {
        work.say(format!("passed over, in search of its kernel: {passed_over}"));
    }
    if let Some(why) = recorded.initrd_error {
        bail!("the image was imported, but its initrd could not be built: {why}");
    }
    if let Some(machine) = published_from.filter(|_| recorded.goes_on) {
        work.say(format!(
            "warning: {machine} has started again on what was published, and goes on changing it: what it writes now is not in this version"
        ));
    }
    if let Some(size) = recorded.initrd_bytes {
        work.say(format!("initrd built: {:.1} MB", size as f64 / 1e6));
    }
    Ok(told)
}

/// For whom a version is that is there already, if that is not as somebody wants it.
fn said_of_state(
    image: &ImageName,
    version: u32,
    state: Option<VersionState>,
    wanted: VersionState,
) -> String {
    let command = match wanted {
        VersionState::Released => "release",
        VersionState::Test => "test",
        VersionState::Draft => "draft",
        VersionState::Retired => "retire",
    };
    match state.filter(|state| *state != wanted) {
        Some(state) => {
            format!(". It stays {state}: bootlace image {command} {image}/v{version} changes that")
        }
        None => String::new(),
    }
}

fn said_of_import(version: &ImageVersion, put_back: &[&str]) -> String {
    let ImageVersion { image, version: number, .. } = version;
    if !put_back.is_empty() {
        return format!(
            "{image}: version {number} has this content, and was damaged: put back {}. A machine that runs keeps the files \
             that it has open until it starts again",
            put_back.join(", ")
        );
    }
    if version.is_data() {
        let (file_system, size) = (version.file_system, Size(version.size_bytes));
        return format!(
            "{image}: version {number} imported: a disk beside roots, {file_system}, {size}"
        );
    }
    format!(
        "{image}: version {number} imported: {}, kernel {} for {}, {}",
        version.os_name.as_deref().unwrap_or("unknown system"),
        version.kernel_version,
        version.architecture,
        Size(version.size_bytes)
    )
}

/// Tells the boot server of a version that is in the store, or records it here if none runs. The one that ran when the
/// import began may have ended since, or been restarted.
fn record(paths: &Paths, server: Option<UnixStream>, new: &NewVersion) -> anyhow::Result<Recorded> {
    let NewVersion { image, version, .. } = new;
    let tell = |server| Site::enter(paths, server)?.work::<Recorded>(IMAGES, new);
    let told = match server {
        // What is recorded twice is recorded once.
        Some(server) => tell(Some(server)).or_else(|error| match error.is::<Refused>() {
            true => Err(error),
            false => tell(None),
        }),
        None => tell(None),
    };
    told.with_context(|| {
        format!(
            "{image}/v{version} is in the image store, but machines don't get it yet: import it once more, which \
             then takes no room, or restart the boot server"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site::tests::Server;

    /// A complete version in the store, as far as anybody looks.
    fn make(paths: &Paths, version: u32) {
        let folder = paths.images().join("debian").join(version.to_string());
        std::fs::create_dir_all(&folder).unwrap();
        let about = format!(
            "image = \"debian\"\nversion = {version}\ndigest = \"00\"\nsize_bytes = 4096\n\
             file_system = \"ext4\"\nkernel_version = \"6.1.0\"\nimported_unix = 0\n"
        );
        std::fs::write(folder.join("image.toml"), about).unwrap();
    }

    fn versions(paths: &Paths) -> (bool, usize) {
        let site = Site::enter(paths, None).unwrap();
        let versions: Vec<ImageVersion> = site.get("/api/v1/images").unwrap();
        (site.has_server(), versions.len())
    }

    #[test]
    fn a_version_is_recorded_by_the_server_that_runs_or_without_it() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::under(folder.path());
        let debian = |version| NewVersion {
            image: "debian".parse().unwrap(),
            version,
            published_from: None,
        };
        let server = Server::start(&paths);
        make(&paths, 1);
        assert_eq!(versions(&paths), (true, 0), "nobody has told");
        let recorded = record(&paths, connect(&paths).unwrap(), &debian(1)).unwrap();
        assert!(recorded.initrd_error.unwrap().contains("bootlace-init"));
        assert_eq!(versions(&paths), (true, 1));
        let missing = record(&paths, None, &debian(9)).unwrap_err();
        let text = format!("{missing:#}");
        assert!(text.contains("debian/v9") && text.contains("import it once more"), "{text}");

        // It ends between the import's beginning and its end.
        let stream = connect(&paths).unwrap();
        drop(server);
        make(&paths, 2);
        record(&paths, stream, &debian(2)).unwrap();
        assert_eq!(versions(&paths), (false, 2));
        // Or it is another one by then.
        let server = Server::start(&paths);
        let stream = connect(&paths).unwrap();
        drop(server);
        let _server = Server::start(&paths);
        make(&paths, 3);
        record(&paths, stream, &debian(3)).unwrap();
        assert_eq!(versions(&paths), (true, 3));
    }
}
