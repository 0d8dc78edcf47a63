//! `bootlace room …` and `bootlace site …`

use super::image::warn_of_nothing;
use super::status::count;
use super::{WrongUsage, check_inherit, root_kind, say, table, write_mode};
use crate::paths::Paths;
use crate::site::Site;
use clap::{Args, Subcommand};
use hyper::Method;
use model::{
    ImageChoice, KernelArgs, MachineName, Menu, RoomName, RootKind, RootUrl, Seat, Setting,
    Settings, WriteMode,
};
use serde::Deserialize;
use serde_json::Value;
use service::{RoomChange, SettingsChange};

#[derive(Subcommand)]
pub(super) enum Room {
    /// List rooms, what they say, and their machines
    Ls {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Add a room, or change one with effect from the next boot of its machines
    ///
    /// Example: bootlace room set r101 --image debian-12 --size 3.8
    ///
    /// Its machines inherit its settings, unless they have their own. To put a machine in it: bootlace machine set NAME --room ROOM.
    Set(Box<SetRoom>),
    /// Remove a room that no machine is in
    Rm {
        /// Name of the room
        name: RoomName,
    },
}

#[derive(Subcommand)]
pub(super) enum SiteSettings {
    /// Show what machines inherit whose room says nothing
    Show {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Change what machines inherit whose room says nothing, with effect from their next boot
    ///
    /// Example: bootlace site set --image debian-12
    ///
    /// Kernel parameters of all machines are set in the configuration: kernel_args below [boot].
    Set(Box<Inherited>),
}

/// What rooms and the site say to their machines.
#[derive(Args)]
pub(super) struct Inherited {
    /// Image to boot: debian-12 for what is released of it, debian-12/test, or debian-12/v3
    #[arg(long, conflicts_with = "no_image")]
    image: Option<ImageChoice>,
    /// Boot nothing: wait in the loader
    #[arg(long)]
    no_image: bool,
    /// How root disks reach machines; all but nbd and aoe need --root-url
    #[arg(long, value_name = "KIND", value_parser = root_kind())]
    root_kind: Option<RootKind>,
    /// Root on another server, which all machines read: with the option ro
    #[arg(long, value_name = "URL")]
    root_url: Option<RootUrl>,
    /// What becomes of machines' writes
    #[arg(long, value_name = "MODE", value_parser = write_mode())]
    write_mode: Option<WriteMode>,
    /// What can be chosen in machines' loaders; the first starts if nobody chooses. `bootlace help boot-menus` tells all of it
    ///
    /// Lines with commas between them: image, local-disk, memory-test, image:NAME for another image; NAME/locked for a line that
    /// needs the menu's password; and how long it waits, like 10s. Example: --menu image,local-disk,10s
    #[arg(long, value_name = "LINES")]
    menu: Option<Menu>,
    /// Say nothing more of this setting: image, root, write_mode or menu; may be repeated
    #[arg(long, value_name = "SETTING")]
    inherit: Vec<Setting>,
}

#[derive(Args)]
pub(super) struct SetRoom {
    /// Name of the room
    name: RoomName,
    /// Another name for it
    #[arg(long, value_name = "NAME")]
    rename: Option<RoomName>,
    /// A remark for people
    #[arg(long)]
    note: Option<String>,
    /// How many rows of seats it has, and how many seats a row, like 3.8
    #[arg(long, value_name = "ROWS.SEATS", conflicts_with = "no_size", value_parser = size)]
    size: Option<Seat>,
    /// Seats may have any numbers
    #[arg(long)]
    no_size: bool,
    #[command(flatten)]
    inherited: Inherited,
    /// Kernel parameters of its machines, after the site's and before their own
    #[arg(long, value_name = "ARGS", allow_hyphen_values = true)]
    kernel_args: Option<KernelArgs>,
}

fn size(text: &str) -> Result<Seat, String> {
    text.parse().map_err(|_| {
        "it is ROWS.SEATS, both from 1 to 255, like 3.8 for three rows of eight".to_owned()
    })
}

/// A room, as far as it is printed.
#[derive(Deserialize)]
struct Printed {
    name: RoomName,
    #[serde(default)]
    note: String,
    #[serde(flatten)]
    says: Settings,
    #[serde(default)]
    kernel_args: String,
    #[serde(default)]
    size: Option<Seat>,
    #[serde(default)]
    machines: Vec<MachineName>,
}

impl Printed {
    /// `image debian-12, kernel parameters "quiet", 3 rows of 8 seats`.
    fn in_words(&self) -> String {
        let args = Some(&self.kernel_args).filter(|args| !args.is_empty());
        let args = args.map(|args| format!("kernel parameters {args:?}"));
        let size = self.size.map(|size| {
            let [rows, seats] = [(size.row, "row"), (size.column, "seat")]
                .map(|(n, what)| count(n.get().into(), what));
            format!("{rows} of {seats}")
        });
        said(words(&self.says).into_iter().chain(args).chain(size))
    }
}

fn said(words: impl IntoIterator<Item = String>) -> String {
    let words: Vec<String> = words.into_iter().collect();
    if words.is_empty() { "no settings of its own".to_owned() } else { words.join(", ") }
}

impl Room {
    pub(super) fn run(self, paths: &Paths) -> anyhow::Result<()> {
        match self {
            Self::Ls { json } => list(paths, json),
            Self::Set(set) => set.run(paths),
            Self::Rm { name } => {
                let () = Site::open(paths)?.send(Method::DELETE, &url(&name), &())?;
                say(format!("{name}: removed"));
                Ok(())
            }
        }
    }
}

impl SiteSettings {
    pub(super) fn run(self, paths: &Paths) -> anyhow::Result<()> {
        let says: Settings = match self {
            Self::Show { json } => {
                let says: Settings = Site::open(paths)?.get("/api/v1/site")?;
                if json {
                    say(serde_json::to_string_pretty(&says)?);
                    return Ok(());
                }
                says
            }
            Self::Set(change) => {
                let change = change.change()?;
                Site::open(paths)?.send(Method::PATCH, "/api/v1/site", &change)?
            }
        };
        say(format!("machines whose room says nothing: {}", said(words(&says))));
        Ok(())
    }
}

impl Inherited {
    fn change(self) -> Result<SettingsChange, WrongUsage> {
        let gives_root = self.root_kind.is_some() || self.root_url.is_some();
        let gives_image = self.image.is_some() || self.no_image;
        let given = [gives_image, gives_root, self.write_mode.is_some(), self.menu.is_some()];
        check_inherit(&self.inherit, given)?;
        Ok(SettingsChange {
            image: if self.no_image { Some(None) } else { self.image.map(Some) },
            root: self.root_kind,
            root_url: self.root_url,
            write_mode: self.write_mode,
            menu: self.menu,
            inherit: self.inherit,
        })
    }
}

impl SetRoom {
    fn run(self, paths: &Paths) -> anyhow::Result<()> {
        let SettingsChange { image, root, root_url, write_mode, menu, inherit } =
            self.inherited.change()?;
        let given = image.clone();
        let change = RoomChange {
            name: self.rename,
            note: self.note,
            size: if self.no_size { Some(None) } else { self.size.map(Some) },
            image,
            root,
            root_url,
            write_mode,
            menu,
            inherit,
            kernel_args: self.kernel_args,
        };
        let site = Site::open(paths)?;
        let rooms: Vec<Printed> = site.get("/api/v1/rooms")?;
        let is_there = rooms.iter().any(|room| room.name == self.name);
        // Another name is for a room that there is.
        let method = if is_there || change.name.is_some() { Method::PATCH } else { Method::PUT };
        let room: Printed = site.send(method, &url(&self.name), &change)?;
        say(format!(
            "{}: {}; takes effect at the next boot of its machines",
            room.name,
            room.in_words()
        ));
        given.flatten().map_or(Ok(()), |image| warn_of_nothing(paths, &site, &image))
    }
}

/// Where a room is in the API.
fn url(name: &RoomName) -> String {
    format!("/api/v1/rooms/{name}")
}

/// Each of what is said: `image debian-12`, `write mode ram`.
fn words(says: &Settings) -> Vec<String> {
    let image = says.image.as_ref().map(|image| match image {
        Some(image) => format!("image {image}"),
        None => "no image".to_owned(),
    });
    let root = match (&says.root_url, says.root) {
        (Some(url), _) => Some(format!("root {url}")),
        (None, root) => root.map(|root| format!("root over {root}")),
    };
    let mode = says.write_mode.map(|mode| format!("write mode {mode}"));
    let menu = says.menu.as_ref().map(|menu| format!("in the loader {}", menu.in_words()));
    [image, root, mode, menu].into_iter().flatten().collect()
}

fn list(paths: &Paths, json: bool) -> anyhow::Result<()> {
    let site = Site::open(paths)?;
    if json {
        let rooms: Value = site.get("/api/v1/rooms")?;
        say(serde_json::to_string_pretty(&rooms)?);
        return Ok(());
    }
    let rooms: Vec<Printed> = site.get("/api/v1/rooms")?;
    if rooms.is_empty() {
        say("No rooms yet. Add one: bootlace room set NAME --image IMAGE");
        return Ok(());
    }
    let rows: Vec<[String; 4]> = rooms
        .iter()
        .map(|room| {
            [
                room.name.to_string(),
                room.machines.len().to_string(),
                room.in_words(),
                room.note.clone(),
            ]
        })
        .collect();
    say(table(["ROOM", "MACHINES", "SAYS", "NOTE"], &rows));
    Ok(())
}
