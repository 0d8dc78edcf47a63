//! Capture of a PC: its own disks are read, and what is on them is sent to the boot server, where it becomes an image. Nothing is written
//! to them: each is read through a device of the device mapper that takes no writes.

mod content;
mod disks;
mod fstab;
mod send;
mod tar;
mod walk;

use crate::console::Console;
use crate::failure::Failure;
use crate::handover::{find_init, resolve};
use crate::modules::Modules;
use content::Content;
use disks::{NotMounted, Part, leave, size};
use fstab::LineKind;
use initcfg::{BootConfig, CaptureAbout, CaptureOrder, Token};
use send::Sending;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use walk::{Broken, Sent, Tree};

/// How often people are told how far it is.
const TELL_EVERY: Duration = Duration::from_secs(15);

/// What helps against what was not shut down.
const SHUT_DOWN: &str = "start this PC from its own disk, shut it down (no hibernation, no fast start), and order the capture again";

/// Finds the system on the PC's disks, and sends it.
pub(crate) fn run(
    order: &CaptureOrder,
    config: &BootConfig,
    token: Option<&Token>,
    modules: &Modules,
    console: &Console,
) -> Result<(), Failure> {
    let Some(token) = token else {
        return Err(Failure::new(
            "this boot has no secret, by which the boot server knows it",
            "restart this machine",
        ));
    };
    let parts = disks::find(modules, console)?;
    let found: Vec<String> = parts.iter().map(Part::in_words).collect();
    console.say("capture", &format!("found {}", found.join(", ")));
    if let Some(asleep) = parts.iter().find(|part| part.content == Content::Hibernated) {
        let what = format!("its system only sleeps: its memory is on {}", asleep.name);
        return Err(Failure::new(what, SHUT_DOWN));
    }
    let (root, mounted) = find_root(order, &parts, modules)?;
    let mut remarks = Vec::new();
    let tree = tree_of(order, (root, mounted.clone()), &parts, modules, &mut remarks)?;
    for remark in &remarks {
        console.say("capture", &format!("left out: {remark}"));
    }
    let used_bytes = tree.mounts.values().map(|at| used(at)).sum();
    let what = format!("{} on {}", os_name(&mounted), root.in_words());
    console.say("capture", &format!("sends {what}, {} are used", size(used_bytes)));
    let about = CaptureAbout { used_bytes, what, remarks };
    let sent = send(&tree, config, token, &about, console)?;
    console.say("capture", &format!("sent {} files, {}", sent.n_files, size(sent.n_bytes)));
    Ok(())
}

/// The part that holds the system, mounted.
fn find_root<'p>(
    order: &CaptureOrder,
    parts: &'p [Part],
    modules: &Modules,
) -> Result<(&'p Part, PathBuf), Failure> {
    let listed = || parts.iter().map(Part::in_words).collect::<Vec<_>>().join(", ");
    let mut roots = Vec::new();
    let mut unclean = Vec::new();
    let mut troubles = Vec::new();
    for part in parts.iter().filter(|part| order.disk.as_ref().is_none_or(|it| *it == part.name)) {
        if part.files().is_none() {
            continue;
        }
        match part.mount(None, modules) {
            Ok(mounted) if is_system(&mounted) => roots.push((part, mounted)),
            Ok(mounted) => leave(&mounted),
            Err(NotMounted::Unclean) => unclean.push(part.name.as_str()),
            Err(NotMounted::Because(why)) => troubles.push(format!("{}: {why}", part.name)),
        }
    }
    if roots.len() > 1 {
        let systems =
            roots.iter().map(|(part, at)| format!("{} on {}", os_name(at), part.in_words()));
        let systems: Vec<String> = systems.collect();
        return Err(Failure::new(
            format!("there are several systems: {}", systems.join("; ")),
            format!("name the one that is wanted, by --disk {}", roots[0].0.name),
        ));
    }
    if let Some(found) = roots.pop() {
        return Ok(found);
    }
    if !unclean.is_empty() {
        let what = format!("{} was not shut down: its journal is not empty", unclean.join(" and "));
        return Err(Failure::new(what, SHUT_DOWN));
    }
    if !troubles.is_empty() {
        return Err(Failure::new(
            format!("its disks can't be read: {}", troubles.join("; ")),
            "take the kernel of an image like what is on them, by --with",
        ));
    }
    let unfit = parts.iter().find_map(|part| match part.content {
        Content::Unfit(why) => Some((part, why)),
        _ => None,
    });
    Err(match (unfit, &order.disk) {
        (Some((part, why)), None) => Failure::new(
            format!("no Linux is found that can be captured; {} is {why}", part.name),
            "a PC can be captured whose Linux is on ext4, XFS or btrfs, on partitions or linear LVM, and not encrypted; else import a \
             copy of its disk",
        ),
        (_, Some(disk)) => Failure::new(
            format!("no Linux is found on {disk}; there are {}", listed()),
            "name another by --disk, or none",
        ),
        (None, None) => Failure::new(
            format!("no Linux is found on its disks; there are {}", listed()),
            "install one first, or look whether all its disks are found",
        ),
    })
}

fn is_system(mounted: &Path) -> bool {
    let has = |path: &str| {
        resolve(mounted, Path::new(path)).is_some_and(|at| fs::symlink_metadata(at).is_ok())
    };
    has("/etc/passwd") && has("/usr") && find_init(mounted, "").is_ok()
}

/// What belongs to the system, by its own fstab, and is not wanted away.
fn tree_of(
    order: &CaptureOrder,
    (root, mounted): (&Part, PathBuf),
    parts: &[Part],
    modules: &Modules,
    remarks: &mut Vec<String>,
) -> Result<Tree, Failure> {
    let lines = resolve(&mounted, Path::new("/etc/fstab"))
        .and_then(|at| fs::read(at).ok())
        .map_or_else(Vec::new, |it| fstab::lines(&it));
    let mut tree = Tree::default();
    tree.mounts.insert(PathBuf::new(), mounted);
    for folder in &order.without {
        let folder = PathBuf::from(folder.trim_start_matches('/'));
        remarks.push(format!("/{}: by order", folder.display()));
        tree.without.push(folder);
    }
    for line in lines {
        let at = line.at.display();
        if line.kind == LineKind::SwapFile {
            remarks.push(format!("/{at}: it is swapped to"));
            tree.without.push(line.at);
            continue;
        }
        let is_unwanted = tree.without.iter().any(|it| line.at.starts_with(it));
        let is_hidden = line.at.iter().next_back().is_some_and(|it| it == ".snapshots");
        if is_unwanted || is_hidden || tree.mounts.contains_key(&line.at) {
            continue;
        }
        if fstab::is_of_firmware(&line.at) {
            remarks.push(format!("/{at}: a diskless PC has no use for it"));
            continue;
        }
        let Some(part) = parts.iter().find(|part| part.is_called(&line.source)) else {
            remarks.push(format!("/{at}: {} is not found", line.source));
            continue;
        };
        if part.name == root.name && line.subvolume.is_none() {
            continue;
        }
        match part.mount(line.subvolume.as_deref(), modules) {
            Ok(at) => {
                tree.mounts.insert(line.at, at);
            }
            Err(NotMounted::Unclean) => {
                let what =
                    format!("/{at} ({}) was not shut down: its journal is not empty", part.name);
                return Err(Failure::new(what, SHUT_DOWN));
            }
            Err(NotMounted::Because(why)) => {
                remarks.push(format!("/{at}: {} can't be mounted: {why}", part.in_words()));
            }
        }
    }
    Ok(tree)
}

fn send(
    tree: &Tree,
    config: &BootConfig,
    token: &Token,
    about: &CaptureAbout,
    console: &Console,
) -> Result<Sent, Failure> {
    let not_taken = |error: std::io::Error| {
        Failure::new(
            format!("the boot server does not take it: {error}"),
            "look at the job on its page, or what its log says; then order the capture again",
        )
    };
    let mut sending = Sending::begin(config, token, about).map_err(not_taken)?;
    let mut told = Instant::now();
    let mut tell = |sent: Sent| {
        if told.elapsed() > TELL_EVERY {
            told = Instant::now();
            let (done, all) = (size(sent.n_bytes), size(about.used_bytes));
            console.wait("capture", &format!("it sends its disk: {done} of about {all}"));
        }
    };
    console.wait_silently("it sends its disk");
    match walk::write(tree, &mut sending, &mut tell) {
        Ok(sent) => sending.finish().map_err(not_taken).map(|()| sent),
        Err(Broken::Write(error)) => Err(not_taken(sending.reason(error))),
        Err(Broken::Read(path, error)) => Err(Failure::new(
            format!("{} can't be read: {error}", path.display()),
            "its disk may be failing: look at the kernel's log on this machine's page; --without /FOLDER leaves a folder out",
        )),
    }
}

/// Bytes that a file system's files take.
fn used(mounted: &Path) -> u64 {
    let about = rustix::fs::statvfs(mounted);
    about.map_or(0, |it| it.f_blocks.saturating_sub(it.f_bfree).saturating_mul(it.f_frsize))
}

/// What the system calls itself.
fn os_name(mounted: &Path) -> String {
    let read = |path| fs::read_to_string(resolve(mounted, Path::new(path))?).ok();
    let text = read("/etc/os-release").or_else(|| read("/usr/lib/os-release")).unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    let name = name.unwrap_or_default().trim_matches(['"', '\'']);
    let plain: String = name.chars().filter(|letter| !letter.is_control()).take(80).collect();
    if plain.is_empty() { "a Linux without a name".to_owned() } else { plain }
}
