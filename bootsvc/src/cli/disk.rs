//! `bootlace disk …`

use super::files::Whose;
use super::setup::agrees;
use super::{advise, say, table};
use crate::paths::Paths;
use crate::site::Site;
use anyhow::{bail, ensure};
use clap::{ArgGroup, Args, Subcommand};
use hyper::Method;
use model::{
    DiskId, DiskPurpose, DiskTag, DiskWrites, FilesOf, ImageChoice, ImageVersion, MachineName,
    SiteDisk, Size, binary_size, disk_folder,
};
use service::{KeptBeside, MachineDisk, NewDisk};
use std::process::{Command, Stdio};

const DISKS: &str = "/api/v1/disks";

#[derive(Subcommand)]
pub(super) enum Disk {
    /// List the disks that machines have beside their roots
    #[command(alias = "list")]
    Ls {
        /// Those that this machine has, by whatever it has them
        #[arg(long, value_name = "NAME")]
        machine: Option<MachineName>,
        /// What machines have written to disks that are kept, also to those that they have no more
        #[arg(long, conflicts_with = "machine")]
        kept: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Give machines a disk beside their roots, from their next boot on
    ///
    /// Examples:
    ///   bootlace disk put home --size 20G --carry /home --room lab-1
    ///   bootlace disk put courses --image courses --mount /srv/courses
    ///   bootlace disk put scratch --size 100G --mount /data --writes kept --machine lab-07
    ///   bootlace disk put swap --size 4G --swap
    ///
    /// Each machine has a disk of its own, but for one to which nobody writes: that all share. It takes the place of the one that
    /// they had by this name; a machine's counts more than its room's, and that more than the site's. What machines have written to
    /// a disk that is kept stays theirs until bootlace disk reset. All of it: bootlace help further-disks
    #[command(verbatim_doc_comment)]
    Put(Box<Put>),
    /// Throw away what a machine has written to a disk beside its root: it begins anew
    ///
    /// The machine must be off. Example: bootlace disk reset lab-07+home
    Reset {
        /// Machine and disk, like lab-07+home
        disk: DiskId,
        /// Don't ask
        #[arg(long)]
        yes: bool,
    },
    /// Machines have this disk no more, from their next boot on
    ///
    /// What they have written to it stays, and is theirs again if they get a disk of this name again.
    Rm {
        /// Name of the disk
        name: DiskTag,
        #[command(flatten)]
        whose: Whose,
    },
}

#[derive(Args)]
#[command(group = ArgGroup::new("what").required(true).multiple(false))]
pub(super) struct Put {
    /// Name of the disk, like home: 1 to 24 lower-case letters, digits and hyphens
    name: DiskTag,
    /// Mount it at this folder, which is made if it is not there
    #[arg(long, value_name = "FOLDER", group = "what")]
    mount: Option<String>,
    /// Have this folder of the root on it; at first it holds what the image has there. May be repeated
    #[arg(long, value_name = "FOLDER", group = "what")]
    carry: Vec<String>,
    /// Swap to it
    #[arg(long, group = "what")]
    swap: bool,
    /// They have none of this name, though the room or the site has one
    #[arg(long, group = "what", conflicts_with_all = ["image", "size", "writes"])]
    none: bool,
    /// With which image it begins: one that was imported with --data, or made by bootlace image new
    #[arg(long, conflicts_with = "size")]
    image: Option<ImageChoice>,
    /// It begins empty, with this size: an image of its name is made for that, unless there is one
    #[arg(long, value_parser = size)]
    size: Option<u64>,
    /// What becomes of writes to a disk that is mounted: ro (there are none, and all read the same), forgotten (with the boot) or
    /// kept [default: kept with --size, ro with --image]
    #[arg(long)]
    writes: Option<DiskWrites>,
    #[command(flatten)]
    whose: Whose,
}

fn size(text: &str) -> Result<u64, String> {
    binary_size(text).ok_or_else(|| "write it as 20G, with M, G or T".to_owned())
}

impl Disk {
    pub(super) fn run(self, paths: &Paths) -> anyhow::Result<()> {
        match self {
            Self::Ls { kept: true, json, .. } => list_kept(paths, json),
            Self::Ls { machine: Some(name), json, .. } => list_of_machine(paths, &name, json),
            Self::Ls { machine: None, json, .. } => list(paths, json),
            Self::Reset { disk, yes } => reset(paths, &disk, yes),
            Self::Put(put) => put.run(paths),
            Self::Rm { name, whose } => {
                let url = format!("{DISKS}/disk?name={name}{}", whose.in_query());
                let () = Site::open(paths)?.send(Method::DELETE, &url, &())?;
                say(format!("{name}: no disk any more, from the next boot on"));
                Ok(())
            }
        }
    }
}

impl Put {
    fn run(self, paths: &Paths) -> anyhow::Result<()> {
        let Self { name, mount, carry, swap, none, image, size, writes, whose } = self;
        // Before an image is made for it.
        for folder in mount.iter().chain(&carry) {
            disk_folder(folder)?;
        }
        if size.is_some() {
            let site = Site::open(paths)?;
            let room = whose.room.iter().map(|room| format!("/api/v1/rooms/{room}"));
            let machine = whose.machine.iter().map(|name| format!("/api/v1/machines/{name}"));
            for url in room.chain(machine) {
                let _: serde_json::Value = site.get(&url)?;
            }
        }
        let is_new_kept = size.is_some() && mount.is_some();
        let writes = writes.or(is_new_kept.then_some(DiskWrites::Kept));
        let image = match size {
            Some(size_bytes) => Some(empty_image(paths, &name, size_bytes)?),
            None => image,
        };
        let Whose { room, machine } = whose;
        let new = NewDisk { room, machine, name, image, mount, carry, swap, none, writes };
        let disk: SiteDisk = Site::open(paths)?.send(Method::PUT, DISKS, &new)?;
        let whom = match disk.of() {
            FilesOf::Site => "all machines".to_owned(),
            FilesOf::Room(room) => format!("the machines of the room {room}"),
            FilesOf::Machine(machine) => machine.to_string(),
        };
        let what = what(&disk);
        say(format!("{}: {what}, for {whom}; takes effect at the next boot", disk.name));
        Ok(())
    }
}

/// The image with which a disk of this name begins, which is made if it is not there.
fn empty_image(paths: &Paths, name: &DiskTag, size_bytes: u64) -> anyhow::Result<ImageChoice> {
    let image: model::ImageName = name.as_str().parse()?;
    let versions: Vec<ImageVersion> = Site::open(paths)?.get("/api/v1/images")?;
    match versions.iter().rev().find(|version| version.image == image) {
        None => {
            // It becomes another user for that.
            let made = Command::new(std::env::current_exe()?)
                .arg("--root")
                .arg(paths.root())
                .args(["image", "new", image.as_str(), "--size", &format!("{}M", size_bytes >> 20)])
                .stdout(Stdio::null())
                .status()?;
            ensure!(made.success(), "the image {image}, with which the disk begins, was not made");
            say(format!("{image}: an empty image of this size was made"));
        }
        Some(version) if version.is_data() && version.size_bytes == size_bytes => {}
        Some(version) => bail!(
            "there is an image {image} already, of {} bytes: use it by --image {image}, or make another by bootlace image new OTHER \
             --size SIZE, and use that by --image OTHER",
            version.size_bytes
        ),
    }
    Ok(image.into())
}

fn what(disk: &SiteDisk) -> String {
    let Some(what) = &disk.what else { return "none".to_owned() };
    let purpose = match &what.purpose {
        DiskPurpose::Mount(folder) => format!("mounted at {folder}"),
        DiskPurpose::Carry(folders) => format!("holds {}", folders.join(" and ")),
        DiskPurpose::Swap => "swap".to_owned(),
    };
    let writes = match what.writes {
        DiskWrites::Refused => "read-only",
        DiskWrites::Forgotten => "forgotten with the boot",
        DiskWrites::Kept => "kept",
    };
    format!("{purpose}, {writes}")
}

/// What was told, printed as JSON if that is wanted; otherwise it is returned.
fn told<T: serde::de::DeserializeOwned>(
    paths: &Paths,
    url: &str,
    json: bool,
) -> anyhow::Result<Option<T>> {
    let told: serde_json::Value = Site::open(paths)?.get(url)?;
    if json {
        say(serde_json::to_string_pretty(&told)?);
        return Ok(None);
    }
    Ok(Some(serde_json::from_value(told)?))
}

fn list(paths: &Paths, json: bool) -> anyhow::Result<()> {
    let Some(disks) = told::<Vec<SiteDisk>>(paths, DISKS, json)? else { return Ok(()) };
    if disks.is_empty() {
        let next = "bootlace disk put NAME --size 20G --carry /home";
        advise(paths, &format!("No disks beside roots. To give machines one: {next}"));
        return Ok(());
    }
    let rows: Vec<[String; 4]> = disks
        .iter()
        .map(|disk| {
            let image = disk.what.as_ref().map(|what| what.image.to_string());
            [disk.name.to_string(), disk.of().to_string(), image.unwrap_or_default(), what(disk)]
        })
        .collect();
    say(table(["DISK", "OF", "IMAGE", "WHAT"], &rows));
    Ok(())
}

fn list_of_machine(paths: &Paths, name: &MachineName, json: bool) -> anyhow::Result<()> {
    let url = format!("/api/v1/machines/{name}/disks");
    let Some(disks) = told::<Vec<MachineDisk>>(paths, &url, json)? else { return Ok(()) };
    if disks.is_empty() {
        say(format!("{name} has no disks beside its root."));
        return Ok(());
    }
    let size = |bytes: Option<u64>| bytes.map_or_else(String::new, |bytes| Size(bytes).to_string());
    let rows: Vec<[String; 6]> = disks
        .iter()
        .map(|MachineDisk { disk, size_bytes, written_bytes, is_used, trouble }| {
            let now = match (trouble, is_used) {
                (Some(trouble), _) => trouble.clone(),
                (None, true) => "attached".to_owned(),
                (None, false) => String::new(),
            };
            let (of, what) = (disk.of().to_string(), what(disk));
            [disk.name.to_string(), of, what, size(*size_bytes), size(*written_bytes), now]
        })
        .collect();
    say(table(["DISK", "OF", "WHAT", "SIZE", "WRITTEN", "NOW"], &rows));
    Ok(())
}

fn list_kept(paths: &Paths, json: bool) -> anyhow::Result<()> {
    let url = format!("{DISKS}/kept");
    let Some(kept) = told::<Vec<KeptBeside>>(paths, &url, json)? else { return Ok(()) };
    if kept.is_empty() {
        say("No machine has written to a disk beside its root that is kept.");
        return Ok(());
    }
    let rows: Vec<[String; 4]> = kept
        .into_iter()
        .map(|KeptBeside { disk, stands_on, written_bytes, is_wanted, trouble }| {
            let written = written_bytes.map_or_else(String::new, |it| Size(it).to_string());
            let now = match (trouble, is_wanted) {
                (Some(trouble), _) => trouble,
                (None, true) => String::new(),
                (None, false) => "the machine has no such disk any more".to_owned(),
            };
            [disk.to_string(), stands_on.unwrap_or_default(), written, now]
        })
        .collect();
    say(table(["DISK", "BEGAN WITH", "WRITTEN", "NOW"], &rows));
    advise(paths, "To throw one away: bootlace disk reset DISK");
    Ok(())
}

fn reset(paths: &Paths, disk: &DiskId, yes: bool) -> anyhow::Result<()> {
    if !yes
        && !agrees(&format!("Throw away all that {} has written to {disk}", disk.machine), false)?
    {
        bail!("nothing was done");
    }
    let () = Site::open(paths)?.send(Method::DELETE, &format!("{DISKS}/kept/{disk}"), &())?;
    say(format!("{disk}: what was written to it is gone; it begins anew with the next boot"));
    Ok(())
}
