//! Disks beside the root: attached, each with its keeper, and mounted in the root, or swapped to.

mod copy;
mod folders;
mod on_disk;
mod swap;
mod zram;

use crate::console::Console;
use crate::failure::Failure;
use crate::keeper::further_disk;
use crate::modules::Modules;
use crate::root::disk::Disk;
use crate::root::nbd;
use initcfg::{DiskKey, DiskPurpose, DiskWrites, FurtherDisk, HostConfig, ZramPercent};
use on_disk::Mounted;
use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};
use std::io;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long disks without which a machine can be used are tried, all together; a try that has begun may take 11 s more.
const TRIED_MAX: Duration = Duration::from_secs(6);

/// After this time none is tried any more for the first time.
const BEGUN_MAX: Duration = Duration::from_secs(10);

/// What this boot has beside its root.
pub(crate) struct Wanted<'a> {
    /// Of the machine.
    pub(crate) host_name: &'a str,
    pub(crate) boot: u64,
    /// By which the boot proves itself.
    pub(crate) key: Option<DiskKey>,
    pub(crate) disks: &'a [FurtherDisk],
    /// Who has them.
    pub(crate) servers: &'a [SocketAddrV4],
    pub(crate) zram: Option<ZramPercent>,
}

impl<'a> Wanted<'a> {
    /// What the boot server says; `servers` is who is asked.
    pub(crate) fn of(
        host: &'a HostConfig,
        host_name: &'a str,
        key: Option<DiskKey>,
        servers: &'a [SocketAddrV4],
    ) -> Self {
        let HostConfig { boot, disks, zram, .. } = host;
        Self { host_name, boot: *boot, key, disks, servers, zram: *zram }
    }
}

/// What became of it, in words.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Done {
    /// What there is: its name, and more about it.
    pub(crate) there: Vec<(String, String)>,
    /// What there is not, and why; or what people should know.
    pub(crate) troubles: Vec<String>,
}

impl Done {
    /// For the report of the stage: as little as says it.
    pub(crate) fn in_words(&self) -> String {
        let mut text = String::new();
        if !self.there.is_empty() {
            let names: Vec<&str> = self.there.iter().map(|(name, _)| name.as_str()).collect();
            text.push_str(&format!(", disks: {}", names.join(" ")));
        }
        if let Some(first) = self.troubles.first() {
            let n = self.troubles.len();
            text.push_str(&format!(", troubles with disks: {n}, the first: {first}"));
        }
        text
    }
}

/// Makes all of it usable in a root that is mounted.
///
/// # Errors
/// A disk that keeps what is written can't be had: nobody is to work where nothing lasts. Any other trouble is told, and the machine
/// does without.
pub(crate) fn prepare(
    wanted: &Wanted<'_>,
    root: &Path,
    modules: &Modules,
    console: &Console,
) -> Result<Done, Failure> {
    let mut done = Done::default();
    let mut usable = Vec::new();
    let mut attaching = Attaching { wanted, modules, console, began: None };
    for (disk, index) in wanted.disks.iter().zip(nbd::ROOT_INDEX + 1..) {
        let attached = attaching.attach(disk, index);
        let Some(attached) = done.take(disk, attached)? else { continue };
        match disk.purpose {
            DiskPurpose::Swap => {
                let size_bytes = attached.size_bytes().unwrap_or(0);
                let device = attached.device();
                let swapped = swap::start(&device, size_bytes, swap::ON_DISK).map_err(|error| {
                    Failure::new(format!("can't swap to {device}: {error}"), "look at its server")
                });
                if done.take(disk, swapped)?.is_some() {
                    let about = format!("swap on {device}, {} MiB", size_bytes >> 20);
                    done.there.push((disk.tag.to_string(), about));
                }
            }
            DiskPurpose::Mount(_) | DiskPurpose::Carry(_) => {
                let mounted = on_disk::mount(&attached, &disk.tag, disk.writes, modules);
                let Some(mounted) = done.take(disk, mounted)? else { continue };
                if let Some(trouble) = &mounted.trouble {
                    done.troubles.push(format!("disk {}: {trouble}", disk.tag));
                }
                usable.push((disk, mounted));
            }
        }
    }
    let mut placed: Vec<(&FurtherDisk, &Mounted, usize)> = Vec::new();
    for (disk, mounted, folder) in in_order(&usable) {
        let bound = bind(disk, mounted, folder, root, console);
        let Some(()) = done.take(disk, bound)? else { continue };
        match placed.iter_mut().find(|(other, ..)| other.tag == disk.tag) {
            Some((.., n_folders)) => *n_folders += 1,
            None => placed.push((disk, mounted, 1)),
        }
    }
    for (disk, mounted, n_folders) in placed {
        let FurtherDisk { tag, .. } = disk;
        let what = match (&disk.purpose, n_folders) {
            (DiskPurpose::Carry(_), n) if n > 1 => format!("{n} folders, {}", mounted.what),
            _ => format!("{}, {}", disk.folders().join(" "), mounted.what),
        };
        done.there.push((tag.to_string(), what));
    }
    for (_, mounted) in &usable {
        mounted.leave();
    }
    if let Some(percent) = wanted.zram {
        match zram::start(root, percent, (modules, console)) {
            Ok(Some(about)) => done.there.push(("zram".to_owned(), about)),
            // It is said where it is looked for.
            Ok(None) => {}
            Err(why) => done.troubles.push(why),
        }
    }
    Ok(done)
}

impl Done {
    /// What was to be had, or nothing where the machine does without.
    fn take<T>(
        &mut self,
        disk: &FurtherDisk,
        result: Result<T, Failure>,
    ) -> Result<Option<T>, Failure> {
        let tag = &disk.tag;
        match (result, disk.writes) {
            (Ok(value), _) => Ok(Some(value)),
            (Err(Failure { what, remedy }), DiskWrites::Kept) => Err(Failure::new(
                format!("the disk {tag}, which keeps what is written, can't be used: {what}"),
                remedy,
            )),
            (Err(failure), DiskWrites::Refused | DiskWrites::Forgotten) => {
                self.troubles.push(format!("without the disk {tag}: {failure}"));
                Ok(None)
            }
        }
    }
}

/// Folders of all disks, those above before those in them: what is mounted later would hide them.
fn in_order<'a>(
    usable: &'a [(&'a FurtherDisk, Mounted)],
) -> Vec<(&'a FurtherDisk, &'a Mounted, &'a String)> {
    let mut all: Vec<_> = usable
        .iter()
        .flat_map(|(disk, mounted)| disk.folders().iter().map(move |it| (*disk, mounted, it)))
        .collect();
    all.sort_by(|(.., a), (.., b)| Path::new(a).cmp(Path::new(b)));
    all
}

/// Puts a folder of a mounted disk into the root.
fn bind(
    disk: &FurtherDisk,
    mounted: &Mounted,
    folder: &str,
    root: &Path,
    console: &Console,
) -> Result<(), Failure> {
    let target = folders::in_root(root, folder)?;
    let source: PathBuf = match disk.purpose {
        DiskPurpose::Carry(_) => folders::carried(&mounted.at, folder, &target, console)?,
        DiskPurpose::Mount(_) | DiskPurpose::Swap => mounted.at.clone(),
    };
    let bound = mount_bind(&source, &target)
        .and_then(|()| mount_change(&target, MountPropagationFlags::PRIVATE));
    bound.map_err(|error| {
        let error = io::Error::from(error);
        Failure::new(
            format!("can't mount it at {folder}: {error}"),
            "this kernel can't be used: try another version",
        )
    })
}

/// Attaches one disk after the other.
struct Attaching<'a> {
    wanted: &'a Wanted<'a>,
    modules: &'a Modules,
    console: &'a Console,
    /// Since when disks are tried without which the machine can be used.
    began: Option<Instant>,
}

impl Attaching<'_> {
    fn attach(&mut self, disk: &FurtherDisk, index: u32) -> Result<Disk, Failure> {
        let Wanted { host_name, boot, key, servers, .. } = *self.wanted;
        if servers.is_empty() {
            return Err(Failure::new(
                "the boot server names no storage server for it",
                "look at the boot server's log",
            ));
        }
        let end = match disk.writes {
            DiskWrites::Kept => None,
            DiskWrites::Refused | DiskWrites::Forgotten => {
                let began = *self.began.get_or_insert_with(Instant::now);
                if began.elapsed() > BEGUN_MAX {
                    return Err(Failure::new(
                        "the storage server does not answer for other disks, and was not asked",
                        "look at the storage server's log; restart this machine to have them",
                    ));
                }
                Some(began + TRIED_MAX)
            }
        };
        let request = nbd::Request {
            machine: disk.tag.export_of(host_name),
            is_foreign: false,
            boot,
            key,
            exchange: None,
            generation: 0,
            index,
        };
        let attached = nbd::attach(servers, request, end, || None, self.modules, self.console)?;
        let nbd::Attached { disk: device, connection, generation, .. } = attached;
        // The disk works: only an outage of its server would be the end of it.
        let kept = further_disk::start(&disk.tag, index, servers, (connection, generation));
        if let Err(error) = kept {
            let tag = &disk.tag;
            let text = format!("nobody will restore a lost connection of the disk {tag}: {error}");
            self.console.say("disks", &text);
        }
        Ok(device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(text: &str) -> FurtherDisk {
        text.parse().unwrap()
    }

    #[test]
    fn folders_are_mounted_before_what_is_in_them() {
        let disks = [
            "courses ro mount /home/anna/courses",
            "data kept mount /home-2",
            "home kept carry /srv/x /home",
        ]
        .map(disk);
        let mounted =
            |disk| (disk, Mounted { at: PathBuf::new(), what: String::new(), trouble: None });
        let usable: Vec<_> = disks.iter().map(mounted).collect();
        let order: Vec<_> = in_order(&usable).into_iter().map(|(.., folder)| folder).collect();
        assert_eq!(order, ["/home", "/home/anna/courses", "/home-2", "/srv/x"]);
    }

    #[test]
    fn a_boot_ends_without_a_disk_that_is_kept_and_goes_on_without_another() {
        let mut done = Done::default();
        let broken = || Err::<(), _>(Failure::new("it is broken", "fix it"));
        let failure = done.take(&disk("home kept carry /home"), broken()).unwrap_err();
        let text =
            "the disk home, which keeps what is written, can't be used: it is broken; fix it";
        assert_eq!(failure.to_string(), text);
        assert_eq!(done.take(&disk("courses ro mount /srv"), broken()), Ok(None));
        assert_eq!(done.take(&disk("swap forgotten swap"), Ok(5)), Ok(Some(5)));
        assert_eq!(done.troubles, ["without the disk courses: it is broken; fix it"]);
        done.there.push(("swap".to_owned(), "swap on /dev/nbd2, 512 MiB".to_owned()));
        assert_eq!(
            done.in_words(),
            ", disks: swap, troubles with disks: 1, the first: without the disk courses: it is broken; fix it"
        );
        assert_eq!(Done::default().in_words(), "");
    }
}
