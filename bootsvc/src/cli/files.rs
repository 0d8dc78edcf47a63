//! `bootlace files …`

use super::{WrongUsage, count, note, say, table};
use crate::paths::Paths;
use crate::site::Site;
use anyhow::Context as _;
use clap::{ArgGroup, Args, Subcommand};
use hyper::Method;
use initcfg::OVERLAY_MAX;
use jiff::Timestamp;
use model::{FileMode, FileOwner, FilesOf, MachineName, RoomName, SiteFile, SiteFileKind};
use serde_json::Value;
use service::{FileRead, LaidAt, NewFile};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::PathBuf;

#[derive(Subcommand)]
pub(super) enum Files {
    /// List what is laid over the roots of machines
    #[command(alias = "list")]
    Ls {
        /// What is laid over the root of this machine, and what of its room and the site that covers
        #[arg(long, value_name = "NAME", conflicts_with = "room")]
        machine: Option<MachineName>,
        /// Only what is laid for this room
        #[arg(long, value_name = "NAME")]
        room: Option<RoomName>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Lay a file over the roots of machines, with effect from their next boot
    ///
    /// Examples:
    ///   bootlace files put /etc/ldap/ldap.conf ldap.conf
    ///   bootlace files put /etc/krb5.keytab lab-07.keytab --machine lab-07 --secret
    ///   bootlace files put /etc/motd --gone
    ///
    /// It takes the place of what was laid at this path, of which it has permissions, owner and whether it is a template or a secret, unless
    /// they are said anew. Of several at one path the machine's counts more than its room's, and that
    /// more than the site's. All of it: bootlace help lay-files-over
    #[command(verbatim_doc_comment)]
    Put(Box<Put>),
    /// Show one, and what is in it unless that is a secret
    Show {
        #[command(flatten)]
        meant: Meant,
        /// Print only what is in it, byte for byte
        #[arg(long, conflicts_with = "json")]
        content: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Lay nothing there any more: from their next boot on machines have again what their image has
    Rm {
        #[command(flatten)]
        meant: Meant,
    },
}

/// Whose machines.
#[derive(Args)]
#[command(group = ArgGroup::new("whose").multiple(false))]
pub(super) struct Whose {
    /// The machines of this room; without --room and --machine all of the site
    #[arg(long, value_name = "NAME", group = "whose")]
    pub(super) room: Option<RoomName>,
    /// This machine
    #[arg(long, value_name = "NAME", group = "whose")]
    pub(super) machine: Option<MachineName>,
}

impl Whose {
    /// As a query of the API has it, behind other fields.
    pub(super) fn in_query(&self) -> String {
        let room = self.room.iter().map(|room| format!("&room={room}"));
        room.chain(self.machine.iter().map(|machine| format!("&machine={machine}"))).collect()
    }
}

/// Which one.
#[derive(Args)]
pub(super) struct Meant {
    /// Where it is laid
    path: String,
    #[command(flatten)]
    whose: Whose,
}

#[derive(Args)]
#[command(
    group = ArgGroup::new("what").required(true).multiple(false),
    override_usage = "bootlace files put [OPTIONS] <PATH> <FILE|--link <TARGET>|--gone>"
)]
pub(super) struct Put {
    /// Where it is laid: an absolute path. Folders on the way are made
    path: String,
    /// File of this computer with what comes there; - reads it from standard input
    #[arg(group = "what")]
    file: Option<PathBuf>,
    /// A symbolic link comes there, which leads to TARGET
    #[arg(long, value_name = "TARGET", group = "what", conflicts_with_all = ["mode", "owner", "template", "secret"])]
    link: Option<String>,
    /// Nothing is to be there: what the image has there is gone
    #[arg(long, group = "what", conflicts_with_all = ["mode", "owner", "template", "secret"])]
    gone: bool,
    #[command(flatten)]
    whose: Whose,
    /// Permissions, like 0755; without it those of what is there, or else 0644, and 0600 of a secret
    #[arg(long)]
    mode: Option<FileMode>,
    /// User and group by their numbers, like 0:42; without it those of what is there, or else root
    #[arg(long, value_name = "USER:GROUP")]
    owner: Option<FileOwner>,
    /// Put values of the machine where the file has {{bootlace.name}}, also mac, address, room, seat, image, write_mode and server
    #[arg(long)]
    template: bool,
    /// Never show what is in it again
    #[arg(long)]
    secret: bool,
}

impl Meant {
    fn url(&self) -> String {
        let path = encoded(&self.path);
        format!("/api/v1/files/file?path={path}{}", self.whose.in_query())
    }
}

/// As a value of a query (RFC 3986 §2.1).
fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(byte.into());
            }
            _ => encoded += &format!("%{byte:02X}"),
        }
    }
    encoded
}

impl Files {
    pub(super) fn run(self, paths: &Paths) -> anyhow::Result<()> {
        match self {
            Self::Ls { machine: None, room, json } => list(paths, room.as_ref(), json),
            Self::Ls { machine: Some(name), room: _, json } => list_of_machine(paths, &name, json),
            Self::Put(put) => put.run(paths),
            Self::Show { meant, content, json } => show(paths, &meant, content, json),
            Self::Rm { meant } => {
                let () = Site::open(paths)?.send(Method::DELETE, &meant.url(), &())?;
                say(format!("{}: laid no more, from the next boot on", meant.path));
                Ok(())
            }
        }
    }
}

impl Put {
    fn run(self, paths: &Paths) -> anyhow::Result<()> {
        let Self { path, file, link, gone, whose, mode, owner, template, secret } = self;
        let content = file.map(|file| read(&file)).transpose()?;
        let new = content.map(|content| NewFile::of_bytes("", &content)).unwrap_or_default();
        let Whose { room, machine } = whose;
        let new = NewFile { path, room, machine, link, gone, mode, owner, template, secret, ..new };
        let site = Site::open(paths)?;
        let new = if new.base64.is_some() { as_before(&site, new)? } else { new };
        let file: SiteFile = site.send(Method::PUT, "/api/v1/files", &new)?;
        let whom = match file.of() {
            FilesOf::Site => "all machines".to_owned(),
            FilesOf::Room(room) => format!("the machines of the room {room}"),
            FilesOf::Machine(machine) => machine.to_string(),
        };
        let what = what(&file);
        say(format!("{}: {what}, on {whom}; takes effect at the next boot", file.path));
        Ok(())
    }
}

/// The file with what is not said of it as it is of the one in whose place it comes: a new password in a file must not make it one that
/// everybody reads.
fn as_before(site: &Site, new: NewFile) -> anyhow::Result<NewFile> {
    let whose = Whose { room: new.room.clone(), machine: new.machine.clone() };
    let url = Meant { path: new.path.clone(), whose }.url();
    let former: FileRead = match site.get(&url) {
        Ok(former) => former,
        // Nothing is laid there yet, or what is wrong is told when it is put.
        Err(_) => return Ok(new),
    };
    let former = former.file;
    if former.kind != SiteFileKind::File {
        return Ok(new);
    }
    let is_kept = former.secret && !new.secret || former.template && !new.template;
    if is_kept {
        let kinds = [("a secret", former.secret), ("a template", former.template)];
        let kinds: Vec<&str> =
            kinds.into_iter().filter_map(|(kind, is_so)| is_so.then_some(kind)).collect();
        note(format!(
            "{} stays {}, as it was; bootlace files rm first makes it another thing",
            new.path,
            kinds.join(" and ")
        ));
    }
    Ok(NewFile {
        mode: new.mode.or(former.mode),
        owner: new.owner.or(former.owner),
        template: new.template || former.template,
        secret: new.secret || former.secret,
        ..new
    })
}

fn read(file: &std::path::Path) -> anyhow::Result<Vec<u8>> {
    let mut content = Vec::new();
    // One byte more tells that it is too long.
    let longest = OVERLAY_MAX as u64 + 1;
    if file.as_os_str() == "-" {
        io::stdin().lock().take(longest).read_to_end(&mut content).context("standard input")?;
    } else {
        let opened = File::open(file).and_then(|it| it.take(longest).read_to_end(&mut content));
        opened.with_context(|| format!("{} can't be read", file.display()))?;
    }
    if content.len() > OVERLAY_MAX {
        let told = format!(
            "this is too long: at most {OVERLAY_MAX} bytes are laid over a root, all files together. Put what is large into \
             the image"
        );
        return Err(WrongUsage(told).into());
    }
    Ok(content)
}

/// `a file of 12 bytes, 0600, a secret`.
fn what(file: &SiteFile) -> String {
    let mut words = vec![match file.kind {
        SiteFileKind::File => {
            format!("a file of {}", count(file.size_bytes.unwrap_or(0), "byte"))
        }
        SiteFileKind::Link => format!("a link to {}", file.target.as_deref().unwrap_or_default()),
        SiteFileKind::Gone => "nothing is there".to_owned(),
    }];
    words.extend(file.mode.map(|mode| mode.to_string()));
    words.extend(file.owner.map(|owner| format!("owner {owner}")));
    words.extend(file.template.then(|| "a template".to_owned()));
    words.extend(file.secret.then(|| "a secret".to_owned()));
    words.join(", ")
}

fn since(file: &SiteFile) -> String {
    let at = i64::try_from(file.changed_unix).ok().and_then(|it| Timestamp::from_second(it).ok());
    let at = at.map(|at| at.strftime("%F %T UTC").to_string()).unwrap_or_default();
    format!("{at} by {}", file.changed_by)
}

fn list(paths: &Paths, room: Option<&RoomName>, json: bool) -> anyhow::Result<()> {
    let site = Site::open(paths)?;
    let mut files: Vec<SiteFile> = site.get("/api/v1/files")?;
    files.retain(|file| room.is_none() || file.room.as_ref() == room);
    if json {
        say(serde_json::to_string_pretty(&files)?);
        return Ok(());
    }
    if let Some(room) = room.filter(|_| files.is_empty()) {
        say(format!("Nothing is laid for the room {room}; bootlace files ls lists all."));
        return Ok(());
    }
    if files.is_empty() {
        say(
            "Nothing is laid over the roots of machines. Lay a file: bootlace files put /PATH FILE",
        );
        return Ok(());
    }
    let row = |file: &SiteFile| [file.of().to_string(), file.path.clone(), what(file), since(file)];
    let rows: Vec<[String; 4]> = files.iter().map(row).collect();
    say(table(["OF", "PATH", "WHAT", "SINCE"], &rows));
    Ok(())
}

fn list_of_machine(paths: &Paths, name: &MachineName, json: bool) -> anyhow::Result<()> {
    let site = Site::open(paths)?;
    let url = format!("/api/v1/machines/{name}/files");
    if json {
        let files: Value = site.get(&url)?;
        say(serde_json::to_string_pretty(&files)?);
        return Ok(());
    }
    let files: Vec<LaidAt> = site.get(&url)?;
    if files.is_empty() {
        say(format!("Nothing is laid over the root of {name}."));
        return Ok(());
    }
    let row = |laid: &LaidAt| {
        let covers: Vec<String> = laid.covers.iter().map(|it| it.of().to_string()).collect();
        let covers = if covers.is_empty() { "-".to_owned() } else { covers.join(", ") };
        [laid.file.path.clone(), laid.file.of().to_string(), what(&laid.file), covers]
    };
    let rows: Vec<[String; 4]> = files.iter().map(row).collect();
    say(table(["PATH", "OF", "WHAT", "COVERS THAT OF"], &rows));
    Ok(())
}

fn show(paths: &Paths, meant: &Meant, content: bool, json: bool) -> anyhow::Result<()> {
    let site = Site::open(paths)?;
    if json {
        let file: Value = site.get(&meant.url())?;
        say(serde_json::to_string_pretty(&file)?);
        return Ok(());
    }
    let read: FileRead = site.get(&meant.url())?;
    let file = &read.file;
    if content {
        let told = || format!("{}: {}, of which nothing is shown", file.path, what(file));
        let bytes = read.bytes().with_context(told)?;
        return Ok(io::stdout().lock().write_all(&bytes)?);
    }
    say(format!("{} of {}: {}", file.path, file.of(), what(file)));
    say(format!("since {}", since(file)));
    if let Some(digest) = &file.digest {
        say(format!("BLAKE3 {digest}"));
    }
    match (&read.text, file.secret, file.kind) {
        (Some(text), ..) => say(format!("\n{}", text.trim_end_matches('\n'))),
        (None, true, _) => say("what is in it is a secret, and not shown"),
        (None, false, SiteFileKind::File) => {
            say("what is in it is no text; --content writes it as it is");
        }
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::encoded;

    #[test]
    fn a_path_with_any_characters_is_one_value() {
        assert_eq!(encoded("/etc/a b&c=d%/ü"), "/etc/a%20b%26c%3Dd%25/%C3%BC");
    }
}
