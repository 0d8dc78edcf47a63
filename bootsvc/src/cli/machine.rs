//! `bootlace machine …`

mod rm;
mod snapshots;

use super::image::warn_of_nothing;
use super::status::{Next, findings, lines, to_come};
use super::{advise, check_inherit, root_kind, say, table, write_mode};
use crate::paths::Paths;
use crate::site::Site;
use anyhow::bail;
use clap::{Args, Subcommand};
use hyper::Method;
use model::{
    BootChoice, DiskId, FindingKind, ImageChoice, KernelArgs, MachineName, Menu, RoomName,
    RootKind, RootUrl, Seat, Setting, StallVerb, Tag, WriteMode,
};
use serde::Deserialize;
use serde_json::Value;
use service::{MachineChange, PowerVerb};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use wire::Mac;

#[derive(Subcommand)]
pub(super) enum Machine {
    /// List machines, and discovered PCs that are not machines yet
    Ls {
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        which: Which,
    },
    /// Add a machine, or change one with effect from its next boot
    ///
    /// Example: bootlace machine set lab-07 --mac 52:54:00:12:34:56 --image debian-12
    Set(Box<Set>),
    /// Discard everything a machine has written, at its next boot
    ///
    /// It then starts afresh from the newest version of its image.
    Reset {
        /// Name of the machine
        name: MachineName,
        /// Take that back: keep what it has written
        #[arg(long)]
        undo: bool,
    },
    /// Restart a running machine, or shut it down
    ///
    /// Waits up to half a minute for the machine to acknowledge. Its system is stopped in an orderly way; if
    /// that takes longer than two minutes, the machine is cut off.
    Power {
        /// Name of the machine
        name: MachineName,
        /// reboot or poweroff
        verb: PowerVerb,
    },
    /// Retry a machine's writes that are waiting for room on the storage server's disk
    ///
    /// They are also retried every second.
    ResumeWrites {
        /// Name of the machine
        name: MachineName,
    },
    /// Fail a machine's writes that are waiting for room on the storage server's disk
    ///
    /// Later writes that find no room fail, too, until there is room again, resume-writes, or the machine's next boot. Most
    /// systems then make their root read-only and have to be restarted. Without this, the writes wait for as long as it
    /// takes, and nothing is lost.
    FailWrites {
        /// Name of the machine
        name: MachineName,
    },
    /// Stop a machine's next boot in a rescue shell, before its root is attached
    ///
    /// Prints the password that opens the shell on the machine's console. Leaving the shell continues the
    /// boot. If the boot fails before it gets there, the shell is offered along with the error. Needs a
    /// static busybox on the boot server: Debian's package busybox-static.
    Rescue {
        /// Name of the machine
        name: MachineName,
        /// Take that back: boot as usual
        #[arg(long)]
        off: bool,
    },
    /// Start something else the next time, once
    ///
    /// Example: bootlace machine next lab-07 local-disk
    Next {
        /// Name of the machine
        name: MachineName,
        /// What it starts: image, image:NAME for another image, local-disk or memory-test
        #[arg(required_unless_present = "off")]
        choice: Option<BootChoice>,
        /// Take that back
        #[arg(long, conflicts_with = "choice")]
        off: bool,
    },
    /// Print the kernel log of a machine's last failed boot
    Log {
        /// Name of the machine
        name: MachineName,
    },
    /// Print a machine's hardware list, in the form that `initrd build --fit` reads
    Hardware {
        /// Name of the machine
        name: MachineName,
    },
    /// List the snapshots of a machine's persistent disk
    Snapshots {
        /// Name of the machine, or of a disk beside its root, like lab-07+home
        name: DiskId,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Make a snapshot of a machine's persistent disk, while the machine runs
    ///
    /// Example: bootlace machine snapshot lab-07 --note 'before the upgrade'
    Snapshot {
        /// Name of the machine, or of a disk beside its root, like lab-07+home
        name: DiskId,
        /// A remark
        #[arg(long, value_name = "TEXT")]
        note: Option<String>,
    },
    /// Delete a snapshot of a machine's persistent disk
    SnapshotRm {
        /// The snapshot, as lab-07@3
        snapshot: snapshots::Named,
    },
    /// Have a machine's persistent disk go back to a snapshot at its next boot
    ///
    /// What the disk holds then becomes a snapshot itself, so that the rollback can be undone by another one.
    ///
    /// Example: bootlace machine rollback lab-07 --to 3
    Rollback {
        /// Name of the machine, or of a disk beside its root, like lab-07+home
        name: DiskId,
        /// Number of the snapshot
        #[arg(long, value_name = "NUMBER", required_unless_present = "undo")]
        to: Option<u32>,
        /// Take that back: the disk stays as it is
        #[arg(long, conflicts_with = "to")]
        undo: bool,
    },
    /// List a folder of a snapshot, without mounting it
    ///
    /// Example: bootlace machine files lab-07@3 /home
    Files {
        /// The snapshot, as lab-07@3
        snapshot: snapshots::Named,
        /// The folder
        #[arg(default_value = "/")]
        path: String,
        /// Partition of the disk; without it the largest file system that can be read is meant
        #[arg(long, value_name = "NUMBER")]
        partition: Option<u8>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Fetch a file out of a snapshot, without mounting it
    ///
    /// Example: bootlace machine fetch lab-07@3 /home/anna/thesis.odt
    Fetch {
        /// The snapshot, as lab-07@3
        snapshot: snapshots::Named,
        /// The file
        path: String,
        /// Where to put it; - is standard output. Without it, the file gets its own name in this folder
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Partition of the disk; without it the largest file system that can be read is meant
        #[arg(long, value_name = "NUMBER")]
        partition: Option<u8>,
        /// Replace the file if it is there
        #[arg(long)]
        force: bool,
    },
    /// Remove a machine and everything it has written; its PC is listed as discovered when it asks again
    ///
    /// Asks first if it keeps a disk.
    Rm {
        /// Name of the machine
        name: MachineName,
        /// Don't ask: delete its disk, too
        #[arg(long)]
        yes: bool,
    },
}

/// Which machines to list.
#[derive(Args)]
pub(super) struct Which {
    /// Only the machine or PC with this MAC address
    #[arg(long)]
    mac: Option<Mac>,
    /// Only machines in this room
    #[arg(long)]
    room: Option<RoomName>,
    /// Only machines with this tag; of several, with all of them
    #[arg(long, value_name = "WORD")]
    tag: Vec<Tag>,
}

#[derive(Args)]
pub(super) struct Set {
    /// Name of the machine; it is also its host name
    name: MachineName,
    /// MAC address of the NIC that it boots from; required for a new machine
    ///
    /// If the machine has several, this replaces the first one.
    #[arg(long)]
    mac: Option<Mac>,
    /// MAC address of another NIC that it boots from, too, such as the one of its dock; may be repeated
    ///
    /// Whichever it boots from, it is the same machine, with the same disk.
    #[arg(long, value_name = "MAC")]
    add_mac: Vec<Mac>,
    /// MAC address that it does not boot from any more; may be repeated
    #[arg(long, value_name = "MAC")]
    remove_mac: Vec<Mac>,
    /// Image to boot: debian-12 for what is released of it, debian-12/test, or debian-12/v3; a persistent disk stays on what it was made on
    #[arg(long, conflicts_with = "no_image")]
    image: Option<ImageChoice>,
    /// Boot nothing: wait in the loader
    #[arg(long)]
    no_image: bool,
    /// How the root disk reaches it; all but nbd and aoe need --root-url
    #[arg(long, value_name = "KIND", value_parser = root_kind())]
    root_kind: Option<RootKind>,
    /// Root on another server: nfs://ADDRESS/FOLDER, iscsi://ADDRESS/TARGET/LUN, nbd://ADDRESS/EXPORT or aoe://SHELF.SLOT
    ///
    /// Examples: nfs://10.0.0.5/srv/debian-12?vers=3, iscsi://10.0.0.5/iqn.2026-11.example:disk/0?partition=1,
    /// nbd://10.0.0.5/fedora?lv=vg0/root and aoe://7.3
    ///
    /// Options after ? are separated by commas. ro: nothing is written there; what the machine writes stays
    /// in its memory. For NFS: vers=3, 4, 4.1 or 4.2 (default: the newest that the server has) and
    /// mountport=PORT. For disks: partition=NUMBER or lv=GROUP/NAME. Targets that want CHAP can't be used.
    ///
    /// Kernel and initrd still come from the machine's image, so the root must contain the modules of that
    /// kernel. Without ro, each machine needs a root of its own, and keeps what it writes whatever
    /// --write-mode says.
    #[arg(long, value_name = "URL", verbatim_doc_comment)]
    root_url: Option<RootUrl>,
    /// What becomes of its writes
    #[arg(long, value_name = "MODE", value_parser = write_mode())]
    write_mode: Option<WriteMode>,
    /// Kernel parameters for this machine, after the site's and its room's
    #[arg(long, value_name = "ARGS", allow_hyphen_values = true)]
    kernel_args: Option<KernelArgs>,
    /// What can be chosen in its loader; the first starts if nobody chooses. `bootlace help boot-menus` tells all of it
    ///
    /// Lines with commas between them: image, local-disk, memory-test, image:NAME for another image; NAME/locked for a line that
    /// needs the menu's password; and how long it waits, like 10s. Example: --menu image,local-disk,10s
    #[arg(long, value_name = "LINES")]
    menu: Option<Menu>,
    /// Take this from its room or the site: image, root, write_mode or menu; may be repeated
    #[arg(long, value_name = "SETTING")]
    inherit: Vec<Setting>,
    /// Room that it is in
    #[arg(long, conflicts_with = "no_room")]
    room: Option<RoomName>,
    /// Take it out of its room
    #[arg(long)]
    no_room: bool,
    /// Where it stands in its room: 2.5 is row 2, fifth seat
    #[arg(long, value_name = "ROW.SEAT", conflicts_with = "no_seat")]
    seat: Option<Seat>,
    /// It has no seat in its room
    #[arg(long)]
    no_seat: bool,
    /// Word by which it is found, in place of those that it has; may be repeated
    #[arg(long, value_name = "WORD", conflicts_with = "no_tags")]
    tag: Vec<Tag>,
    /// Take all its tags away
    #[arg(long)]
    no_tags: bool,
}

impl Machine {
    pub(super) fn run(self, paths: &Paths) -> anyhow::Result<()> {
        match self {
            Self::Ls { json, which } => list(paths, json, &which),
            Self::Set(set) => set.run(paths),
            Self::Reset { name, undo } => reset(paths, &name, !undo),
            Self::Power { name, verb } => power(&Site::open(paths)?, &name, verb),
            Self::ResumeWrites { name } => decide_stall(paths, &name, StallVerb::Resume),
            Self::FailWrites { name } => decide_stall(paths, &name, StallVerb::Fail),
            Self::Rescue { name, off } => rescue(paths, &name, off),
            Self::Next { name, choice, off: _ } => next(paths, &name, choice),
            Self::Log { name } => {
                let log: Option<KernelLog> =
                    Site::open(paths)?.get(&format!("{}/log", url(&name)))?;
                let Some(log) = log else {
                    bail!("no failed boot of {name} has sent its kernel log");
                };
                say(format!("# {name}, boot {}\n{}", log.boot, log.text.trim_end()));
                Ok(())
            }
            Self::Hardware { name } => {
                let hardware: Option<Hardware> =
                    Site::open(paths)?.get(&format!("{}/hardware", url(&name)))?;
                let Some(hardware) = hardware else {
                    bail!("{name} has not reported its hardware yet: it does so at its next boot");
                };
                let list = hardware.modaliases.join("\n");
                say(format!("# {name}, boot {}\n{list}", hardware.boot));
                Ok(())
            }
            Self::Snapshots { name, json } => snapshots::list(paths, &name, json),
            Self::Snapshot { name, note } => snapshots::make(paths, &name, note),
            Self::SnapshotRm { snapshot } => snapshots::remove(paths, &snapshot),
            Self::Rollback { name, to, undo: _ } => snapshots::roll_back(paths, &name, to),
            Self::Files { snapshot, path, partition, json } => {
                snapshots::files(paths, &snapshot, &path, partition, json)
            }
            Self::Fetch { snapshot, path, output, partition, force } => {
                snapshots::fetch(paths, &snapshot, &path, partition, output, force)
            }
            Self::Rm { name, yes } => rm::remove(paths, &name, yes),
        }
    }
}

/// Where a machine is in the API.
fn url(name: impl std::fmt::Display) -> String {
    format!("/api/v1/machines/{name}")
}

/// A kernel log, as far as it is printed.
#[derive(Deserialize)]
struct KernelLog {
    boot: u64,
    text: String,
}

/// What a machine is made of, as far as it is printed.
#[derive(Deserialize)]
struct Hardware {
    boot: u64,
    modaliases: Vec<String>,
}

impl Set {
    fn run(self, paths: &Paths) -> anyhow::Result<()> {
        let gives_root = self.root_kind.is_some() || self.root_url.is_some();
        let gives_image = self.image.is_some() || self.no_image;
        let given = [gives_image, gives_root, self.write_mode.is_some(), self.menu.is_some()];
        check_inherit(&self.inherit, given)?;
        let change = MachineChange {
            mac: self.mac,
            add_macs: self.add_mac,
            remove_macs: self.remove_mac,
            image: if self.no_image { Some(None) } else { self.image.map(Some) },
            root: self.root_kind,
            root_url: self.root_url,
            write_mode: self.write_mode,
            menu: self.menu,
            kernel_args: self.kernel_args,
            inherit: self.inherit,
            room: if self.no_room { Some(None) } else { self.room.map(Some) },
            seat: if self.no_seat { Some(None) } else { self.seat.map(Some) },
            tags: (self.no_tags || !self.tag.is_empty()).then_some(self.tag),
            ..MachineChange::default()
        };
        let url = url(&self.name);
        let site = Site::open(paths)?;
        let machine: model::Machine = site.send(Method::PATCH, &url, &change)?;
        let what = match (&machine.image, &machine.root_url) {
            (Some(image), Some(url)) => format!("boots the kernel of {image} with the root {url}"),
            (Some(image), None) => {
                format!("boots {image} over {}, write mode {}", machine.root, machine.write_mode)
            }
            (None, _) => {
                format!("boots nothing: it has no image, write mode {}", machine.write_mode)
            }
        };
        let menu = match machine.menu == Menu::default() {
            true => String::new(),
            false => format!("; in its loader: {}", machine.menu.in_words()),
        };
        say(format!(
            "{} ({}): {what}{menu}; takes effect at its next boot",
            machine.name,
            macs(&machine)
        ));
        machine.image.as_ref().map_or(Ok(()), |image| warn_of_nothing(paths, &site, image))
    }
}

fn next(paths: &Paths, name: &MachineName, choice: Option<BootChoice>) -> anyhow::Result<()> {
    let site = Site::open(paths)?;
    let url = url(name);
    // A machine that is not there is not added.
    let _: model::Machine = site.get(&url)?;
    let change = MachineChange { next_boot: Some(choice), ..MachineChange::default() };
    let machine: model::Machine = site.send(Method::PATCH, &url, &change)?;
    let then = machine.menu.in_words();
    let is_memory_test = machine.next_boot == Some(BootChoice::MemoryTest);
    say(match machine.next_boot {
        Some(choice) => {
            format!("{name}: the next time it starts {}, then again {then}", choice.in_words())
        }
        None => format!("{name}: starts {then}"),
    });
    // The boot server is here, too.
    if is_memory_test && !service::has_memory_test() {
        say("this server has no memory test yet: apt-get install memtest86+");
    }
    Ok(())
}

fn macs(machine: &model::Machine) -> String {
    machine.macs().map(|mac| mac.to_string()).collect::<Vec<_>>().join(", ")
}

fn reset(paths: &Paths, name: &MachineName, reset_disk: bool) -> anyhow::Result<()> {
    let site = Site::open(paths)?;
    let url = url(name);
    // A machine that is not there is not added.
    let before: model::Machine = site.get(&url)?;
    let change = MachineChange { reset_disk: Some(reset_disk), ..MachineChange::default() };
    let machine: model::Machine = site.send(Method::PATCH, &url, &change)?;
    advise(paths, &said_of_reset(&before, &machine));
    Ok(())
}

/// What a change of the order to reset the machine's disk has come to.
fn said_of_reset(before: &model::Machine, machine: &model::Machine) -> String {
    let name = &machine.name;
    let forgets = match machine.as_it_boots().write_mode {
        _ if machine.edit.is_some() && machine.reset_disk => {
            "; that is what was changed of its image, and the change begins anew".to_owned()
        }
        WriteMode::Persistent => String::new(),
        mode => format!(
            "; in write mode {mode} it forgets what it writes anyway, and only a disk from when it was persistent is kept"
        ),
    };
    match (before.reset_disk, machine.reset_disk) {
        (_, true) => format!(
            "{name}: what it has written will be discarded at its next boot (bootlace machine reset {name} --undo calls \
             it off){forgets}"
        ),
        (true, false) => format!("{name}: keeps what it has written{forgets}"),
        (false, false) => format!("{name}: no reset was ordered, so nothing changes{forgets}"),
    }
}

fn decide_stall(paths: &Paths, name: &MachineName, verb: StallVerb) -> anyhow::Result<()> {
    let url = format!("{}/stall", url(name));
    let n_requests: u32 = Site::open(paths)?.send(Method::POST, &url, &verb)?;
    let writes = if n_requests == 1 { "write" } else { "writes" };
    say(match (n_requests, verb) {
        (0, StallVerb::Resume) => {
            format!("{name}: no writes are waiting; those that find no room will wait")
        }
        (0, StallVerb::Fail) => format!("{name}: no writes are waiting"),
        (_, StallVerb::Resume) => format!("{name}: {n_requests} {writes} retried"),
        (_, StallVerb::Fail) => format!(
            "{name}: {n_requests} {writes} failed, and so do later ones until there is room, it boots again, or bootlace machine \
             resume-writes {name}"
        ),
    });
    Ok(())
}

/// A rescue shell, as far as it is printed.
#[derive(Deserialize)]
struct Rescue {
    password: String,
}

/// A machine, as far as it can be restarted.
#[derive(Deserialize)]
struct Restarts {
    state: Doing,
    is_proven: bool,
}

#[derive(Deserialize)]
struct Doing {
    word: String,
}

fn rescue(paths: &Paths, name: &MachineName, off: bool) -> anyhow::Result<()> {
    let (site, url) = (Site::open(paths)?, format!("{}/rescue", url(name)));
    if off {
        let next: Next = site.get(&self::url(name))?;
        let () = site.send(Method::DELETE, &url, &())?;
        say(match next.has_rescue() {
            true => format!("{name}: boots as usual"),
            false => {
                format!("{name}: no rescue shell was ordered, so its next boot is as usual already")
            }
        });
        return Ok(());
    }
    let rescue: Rescue = site.send(Method::PUT, &url, &())?;
    // Only a machine that has proven itself, and runs, can be told to restart.
    let machine: Restarts = site.get(&self::url(name))?;
    let begin = match (machine.is_proven, machine.state.word.as_str()) {
        (true, "up") => format!("to restart it now: bootlace machine power {name} reboot"),
        (_, "off") => "to begin: switch it on".to_owned(),
        _ => "to begin: switch it off and on again".to_owned(),
    };
    let told = format!(
        "{name}: its next boot stops in a rescue shell; password: {}\n({begin}; to boot as usual: bootlace machine \
         rescue {name} --off)",
        rescue.password
    );
    advise(paths, &told);
    Ok(())
}

/// How long a machine may take to answer: the boot server may only learn where to reach it from its next
/// sign of life, which comes every 20 s.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// What a machine was asked to do.
#[derive(Deserialize)]
struct Order {
    counter: u64,
    obeyed_unix_ms: Option<u64>,
}

/// A machine, as far as its orders go.
#[derive(Deserialize)]
struct Ordered {
    power: Option<Order>,
}

fn power(site: &Site, name: &MachineName, verb: PowerVerb) -> anyhow::Result<()> {
    let request = serde_json::json!({ "verb": verb.to_string() });
    let asked: Order = site.send(Method::POST, &format!("{}/power", url(name)), &request)?;
    if !site.has_server() {
        bail!(
            "{name} can't be told, as no boot server runs: start it within two minutes, for which the order stands"
        );
    }
    let deadline = Instant::now() + ANSWER_TIMEOUT;
    while Instant::now() < deadline {
        let now = site.get::<Ordered>(&url(name))?.power;
        if now.is_some_and(|now| now.counter == asked.counter && now.obeyed_unix_ms.is_some()) {
            say(format!("{name}: acknowledged ({verb}); its services are stopping"));
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    bail!(
        "{name} has not answered; the order is repeated for two minutes (the machine must be running)"
    )
}

/// A PC that is no machine, as far as it is printed.
#[derive(Deserialize)]
struct Discovered {
    mac: Mac,
    firmware: wire::Firmware,
    address: Option<Ipv4Addr>,
    probable_machine: Option<String>,
}

impl Which {
    fn is_all(&self) -> bool {
        self.mac.is_none() && self.is_any_place()
    }

    fn is_any_place(&self) -> bool {
        self.room.is_none() && self.tag.is_empty()
    }

    fn has(&self, machine: &model::Machine) -> bool {
        self.mac.is_none_or(|mac| machine.macs().any(|its| its == mac))
            && (self.room.is_none() || machine.room == self.room)
            && self.tag.iter().all(|tag| machine.tags.contains(tag))
    }
}

fn list(paths: &Paths, json: bool, which: &Which) -> anyhow::Result<()> {
    let site = Site::open(paths)?;
    let listed: Value = site.get("/api/v1/machines")?;
    let mut next: Vec<Next> = serde_json::from_value(listed.clone())?;
    let mut machines: Vec<model::Machine> = serde_json::from_value(listed)?;
    let mut discovered: Vec<Value> = site.get("/api/v1/discovered")?;
    if let Some(room) = &which.room {
        // One that there is not is a mistake, one that is empty is none.
        let _: Value = site.get(&format!("/api/v1/rooms/{room}"))?;
    }
    machines.retain(|machine| which.has(machine));
    // A PC that is no machine is in no room, and has no tags.
    let of_mac = |pc: &Value| which.mac.is_none_or(|mac| pc["mac"] == mac.to_string());
    discovered.retain(|pc| which.is_any_place() && of_mac(pc));
    if let Some(mac) = which.mac
        && machines.is_empty()
        && discovered.is_empty()
    {
        bail!("no machine has the MAC {mac}, and no PC has asked with it");
    }
    if json {
        let all = serde_json::json!({ "machines": machines, "discovered": discovered });
        say(serde_json::to_string_pretty(&all)?);
        return Ok(());
    }
    if machines.is_empty() && which.is_all() {
        say(
            "No machines yet. Switch on a PC with network boot, then adopt it on the web page, or:",
        );
        advise(paths, "bootlace machine set NAME --mac MAC --image IMAGE");
    } else if machines.is_empty() && discovered.is_empty() {
        say("No such machines.");
    } else if !machines.is_empty() {
        let rows: Vec<[String; 7]> = machines.iter().flat_map(rows).collect();
        say(table(["NAME", "MAC", "IMAGE", "ROOT", "WRITES", "AOE", "ROOM"], &rows));
    }
    next.retain(|next| machines.iter().any(|machine| machine.name.as_str() == next.name));
    for told in to_come(&next) {
        advise(paths, &format!("\n{told}"));
    }
    let findings = findings(&site)?;
    for candidate in findings.iter().filter(|finding| finding.is(FindingKind::CandidateBoot)) {
        say(format!("\n{}", lines(std::slice::from_ref(candidate))));
    }
    if !discovered.is_empty() {
        say("\nDiscovered, not adopted:");
        for pc in discovered {
            let pc: Discovered = serde_json::from_value(pc)?;
            let address = pc.address.map_or("no address".into(), |address| address.to_string());
            say(format!("{}  {}  {}", pc.mac, address, pc.firmware));
            if let Some(name) = &pc.probable_machine {
                let told = format!(
                    "  probably a second network card of {name}, as it sends the same UUID; if so: bootlace \
                     machine set {name} --add-mac {}",
                    pc.mac
                );
                advise(paths, &told);
            }
        }
    }
    Ok(())
}

/// A line of the list, and one for each further NIC below it.
fn rows(machine: &model::Machine) -> impl Iterator<Item = [String; 7]> {
    let first = [
        machine.name.to_string(),
        machine.mac.to_string(),
        machine.image.as_ref().map_or("-".into(), ImageChoice::to_string),
        machine.root.to_string(),
        machine.writes().to_string(),
        machine.shelf_slot.to_string(),
        match (&machine.room, machine.seat) {
            (Some(room), Some(seat)) => format!("{room} {seat}"),
            (room, _) => room.as_ref().map(ToString::to_string).unwrap_or_default(),
        },
    ];
    let others = machine.other_macs.iter().map(|mac| {
        let mut row: [String; 7] = Default::default();
        row[1] = mac.to_string();
        row
    });
    std::iter::once(first).chain(others)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_reset_means_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let site = Site::enter(&Paths::under(folder.path()), None).unwrap();
        let change = serde_json::json!({ "mac": "52:54:00:00:00:01" });
        let url = url("lab-07");
        let machine: model::Machine = site.send(Method::PATCH, &url, &change).unwrap();
        let as_is =
            |reset_disk, write_mode| model::Machine { reset_disk, write_mode, ..machine.clone() };
        let said = |before, after, mode| said_of_reset(&as_is(before, mode), &as_is(after, mode));
        let kept = WriteMode::Persistent;
        assert!(said(false, true, kept).ends_with("machine reset lab-07 --undo calls it off)"));
        assert_eq!(said(true, false, kept), "lab-07: keeps what it has written");
        assert_eq!(said(false, false, kept), "lab-07: no reset was ordered, so nothing changes");
        let text = said(false, true, WriteMode::Discard);
        assert!(text.contains("in write mode discard it forgets what it writes anyway"), "{text}");
    }
}
