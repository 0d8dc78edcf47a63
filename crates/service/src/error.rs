//! What can go wrong, in words for the person who asked.

mod capture;
mod disks;
mod edit;
mod files;
mod lease;
mod room;
mod version;

pub use capture::CaptureError;
pub use disks::DisksError;
pub use edit::EditError;
pub use files::FilesError;
pub use lease::LeaseError;
pub use room::RoomError;
pub use version::VersionError;
pub(crate) use version::listed;

use crate::incoming::IncomingError;
use crate::jobs::JobError;
use crate::storage_client::StorageError;
use images::{RecipeError, StoreError, StreamError};
use model::{
    Architecture, BootChoice, Hours, ImageName, Machine, MachineName, NOTE_MAX, Right, Role,
    RoomName, Rooms, RootKind, RootUrl, UserName, WeekTime,
};
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use wire::Mac;

/// Why nothing can be written to a disk that works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unwritable {
    /// There is no room.
    #[error("its disk is full; make room on it, which df shows")]
    Full,
    /// Its file system is mounted so, or the kernel has made it so after an error.
    #[error(
        "its file system is read-only; if it should not be, dmesg says what happened, and mount -o remount,rw makes it \
         writable"
    )]
    ReadOnly,
}

impl Unwritable {
    /// What this error of the operating system says, if it is that.
    pub fn of(kind: io::ErrorKind) -> Option<Self> {
        match kind {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Some(Self::Full),
            io::ErrorKind::ReadOnlyFilesystem => Some(Self::ReadOnly),
            _ => None,
        }
    }
}

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// SQLite refuses.
    #[error("the database {} can't be used", path.display())]
    Database {
        /// The database.
        path: PathBuf,
        /// What SQLite says. Shared by all who waited for the same transaction.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// A disk file can't be received, found or removed.
    #[error(transparent)]
    Incoming(#[from] IncomingError),
    /// An image version was not sent or received.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// A job can't be cancelled or begun.
    #[error(transparent)]
    Job(#[from] JobError),
    /// There is no such recipe, or something can't be chosen in it.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// The boot server may not build images, and nobody else does it for it.
    #[error(
        "this server builds no images for its pages, as the unit bootlace-builder.socket does not run: build it on the \
         server by `sudo bootlace image build`"
    )]
    NoBuilder,
    /// The database was made by a newer Bootlace.
    #[error(
        "the database {} has format {found}, but this Bootlace knows only up to {known}: start the newer \
         Bootlace that made it, or restore a backup", path.display()
    )]
    NewerDatabase {
        /// The database.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format that this program knows.
        known: u32,
    },
    /// There is a database no more.
    #[error(
        "the database {} is {}: to go on with it, restore a backup (bootlace backup restore{} FILE); to begin with an \
         empty site, delete {}", path.display(), if *is_empty { "empty" } else { "missing" },
        if *is_empty { " --replace" } else { "" }, marker.display()
    )]
    DatabaseMissing {
        /// The database.
        path: PathBuf,
        /// There is a file, with nothing in it.
        is_empty: bool,
        /// The file that tells that there was one.
        marker: PathBuf,
    },
    /// There is no database yet.
    #[error("there is no database {} yet: there is nothing to copy", path.display())]
    NoDatabase {
        /// Where it would be.
        path: PathBuf,
    },
    /// The database is damaged.
    #[error(
        "the database {} is damaged ({why}); nothing in it was changed. Restore a backup: bootlace backup restore \
         --replace FILE{copy}", path.display()
    )]
    DatabaseDamaged {
        /// The database.
        path: PathBuf,
        /// What is wrong.
        why: String,
        /// What else there is to restore; may be empty.
        copy: String,
    },
    /// The disk with the database gives errors.
    #[error(
        "the database {} can't be read or written, since its disk or file system gives an error: the kernel's log \
         (dmesg) says more", path.display()
    )]
    DiskBroken {
        /// The database.
        path: PathBuf,
        /// What SQLite says.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// Nothing can be written where the state is.
    #[error("nothing can be stored in {}: {why}", path.display())]
    Unwritable {
        /// What was to be written.
        path: PathBuf,
        /// Why not.
        why: Unwritable,
    },
    /// There is no room for a copy of the database, without which its format is not changed.
    #[error(
        "the database is not upgraded, as there is no room for {} as it was: {} MB are needed, and {} MB are free",
        path.display(), needed_bytes.div_ceil(1_000_000), free_bytes / 1_000_000
    )]
    NoRoomForCopy {
        /// The copy.
        path: PathBuf,
        /// For copy and upgrade.
        needed_bytes: u64,
        /// What there is.
        free_bytes: u64,
    },
    /// The open database has its name no more.
    #[error(
        "{}. Save what the server has by bootlace backup create FILE, then stop it and put the database back by bootlace \
         backup restore --replace FILE",
        self.fact()
    )]
    DatabaseGone {
        /// Its name.
        path: PathBuf,
        /// What has become of it.
        what: &'static str,
    },
    /// Another process keeps all others from writing.
    #[error(
        "nothing can be stored, as {} has locked the database {}: wait for it to finish, or stop it",
        by.as_deref().unwrap_or("another program"), path.display()
    )]
    DatabaseLocked {
        /// The database.
        path: PathBuf,
        /// Who, if it is known.
        by: Option<String>,
    },
    /// A file or folder can't be used.
    #[error("can't {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// More changes wait than the disk can take.
    #[error("too many changes are waiting to be stored: try again in a moment")]
    Busy,
    /// The service is being stopped.
    #[error("the boot server is stopping")]
    Stopping,
    /// There is no such machine.
    #[error("there is no machine {0}: bootlace machine ls shows all")]
    NoMachine(MachineName),
    /// A new machine needs the hardware address of its NIC.
    #[error(
        "there is no machine {0} yet: to add it, give the MAC of the NIC that it boots from, by bootlace machine set {0} --mac MAC"
    )]
    NoMac(MachineName),
    /// Whoever asks for this name gets another host.
    #[error(
        "a machine can't be called {0}, since hosts know that name as something else, most of them as themselves: choose \
         another one"
    )]
    NameMeansElse(MachineName),
    /// The storage server has no disk of this machine now.
    #[error("{0} has no disk at the storage server now, so none of its writes wait there")]
    NoDiskNow(MachineName),
    /// The name is in use.
    #[error("there is a machine {0} already: choose another name")]
    NameTaken(MachineName),
    /// PCs in software would take somebody's machine.
    #[error(
        "there is a machine {name} with the network card {mac}: that name is for PCs that are tried. Give it another one"
    )]
    NotForTrials {
        /// Its name.
        name: MachineName,
        /// Its NIC.
        mac: Mac,
    },
    /// The hardware address is in use.
    #[error("{mac} belongs to the machine {machine}: remove that one first, or change its MAC")]
    MacTaken {
        /// The address.
        mac: Mac,
        /// Whose it is.
        machine: MachineName,
    },
    /// A machine without a hardware address could never boot.
    #[error(
        "{mac} is the only MAC of {machine}: give it another one before you remove this one, or remove the \
         machine"
    )]
    LastMac {
        /// The address.
        mac: Mac,
        /// Whose it is.
        machine: MachineName,
    },
    /// A hardware address is to be taken away from a machine that does not have it.
    #[error("{mac} is not a MAC of {machine}: it has {}", macs.iter().map(Mac::to_string).collect::<Vec<_>>().join(", "))]
    NotItsMac {
        /// The address.
        mac: Mac,
        /// The machine.
        machine: MachineName,
        /// Those that it has.
        macs: Vec<Mac>,
    },
    /// No PC has so many NICs.
    #[error("{0} would have more than {max} MACs: remove one that it no longer boots from", max = Machine::MACS_MAX)]
    TooManyMacs(MachineName),
    /// Nobody said where the root is.
    #[error(
        "{whose} has no address of its {kind} root: give one{}",
        example_url(*kind).map(|url| format!(", like {url}")).unwrap_or_default()
    )]
    NoRootUrl {
        /// The machine, the room or the site.
        whose: String,
        /// How the root shall reach machines.
        kind: RootKind,
    },
    /// Kind and address of a root contradict each other.
    #[error("{url} is not an address for the root kind {kind}: {}", other_url(*kind))]
    RootUrlOfOtherKind {
        /// How the root shall reach the machine.
        kind: RootKind,
        /// Where it shall be.
        url: RootUrl,
    },
    /// No NIC has such an address.
    #[error(
        "{0} is a multicast address or no address at all, so no network card has it: see the sticker on the PC, or adopt the PC when it asks"
    )]
    GroupMac(Mac),
    /// The image has no system.
    #[error(
        "the image {0} is no system, but a disk that machines have beside their roots: bootlace disk put gives it to them, and \
         bootlace image ls shows what they could boot"
    )]
    NoSystem(ImageName),
    /// There is no such image.
    #[error("there is no image {image}: {}", known_images(known))]
    NoImage {
        /// The image that was asked for.
        image: ImageName,
        /// The images that are there.
        known: Vec<ImageName>,
    },
    /// The machine can't start the image.
    #[error(
        "{machine} is an {is} PC, as its firmware said last, and the image {image} is for {image_is}: give it an image for {is}"
    )]
    OtherArchitecture {
        /// The machine.
        machine: MachineName,
        /// What it is.
        is: Architecture,
        /// The image.
        image: ImageName,
        /// What that is for.
        image_is: Architecture,
    },
    /// There is no rescue shell for such a machine.
    #[error(
        "{0} is an arm64 PC, and there is no rescue shell for those: the busybox that it is made of is for x86-64"
    )]
    NoRescueForArm64(MachineName),
    /// Nobody could choose that line of a menu.
    #[error(
        "{0}/locked is for those who know the menu's password, and there is none: set menu_password below [boot] in bootlace.toml first"
    )]
    NoMenuPassword(BootChoice),
    /// There is no such version.
    #[error("there is no {image}/v{version}: bootlace image ls shows all")]
    NoVersion {
        /// The image.
        image: ImageName,
        /// The version that was asked for.
        version: u32,
    },
    /// Something can't be done with an image version.
    #[error(transparent)]
    Version(#[from] VersionError),
    /// An image can't be changed on a machine, or what was changed can't be published.
    #[error(transparent)]
    Edit(#[from] EditError),
    /// A PC can't be captured.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// The kernel gives no random bytes.
    #[error("the kernel gives no random bytes: no secret can be made")]
    NoRandomness,
    /// What is laid over a machine's root can't be handed out.
    #[error(
        "what is laid over the root of {0} can't be handed out: another Bootlace has written it, or it is too much; see bootlace \
         files ls --machine {0}"
    )]
    FilesUnfit(MachineName),
    /// Something can't be done with a room.
    #[error(transparent)]
    Room(#[from] RoomError),
    /// Something can't be laid over machines' roots.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// Machines can't have such a disk beside their roots.
    #[error(transparent)]
    Disks(#[from] DisksError),
    /// Something can't be done with an address.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// A machine can't be told to stop.
    #[error(
        "{0} can't be told to stop: its last boot has not begun, has failed, or runs an initrd of an older \
         Bootlace; switch it off and on by hand"
    )]
    NoKeeper(MachineName),
    /// What follows the initrd can't be made.
    #[error("no host segment can be made for boot {boot}: {why}")]
    HostSegment {
        /// The boot.
        boot: u64,
        /// Why.
        why: String,
    },
    /// A rescue shell needs a busybox.
    #[error(
        "there is no busybox for a rescue shell: install the Debian package busybox-static, or name a static \
         busybox by rescue_busybox below [boot] ({why})"
    )]
    NoBusybox {
        /// What is wrong with those that there are.
        why: String,
    },
    /// Name or password are wrong.
    #[error("name or password is wrong")]
    LoginRefused,
    /// Logins have failed before.
    #[error("logins have failed too often: try again in {}", seconds_in_words(*seconds))]
    LoginDelayed {
        /// How long nobody looks at another attempt.
        seconds: u64,
    },
    /// As many passwords as may be are being looked at.
    #[error("too many people are logging in: try again in a few seconds")]
    TooManyLogins,
    /// The directory did not answer, and there is no account of that name here.
    #[error(
        "the directory that knows the others can't be asked now: only accounts of this server can log in until it answers"
    )]
    DirectoryAway,
    /// A link for logging in is not good any more.
    #[error(
        "this link has been used, or is older than 30 minutes: bootlace login, on the server, prints a new one"
    )]
    LoginCodeVoid,
    /// Somebody may not do this.
    #[error("only {} may do this", who_may(*needed))]
    NotAllowed {
        /// What he would have to have.
        needed: Right,
    },
    /// Somebody may work with machines, and not with this one.
    #[error(
        "{who} can't restart or shut down {machine}, which is {}: it works with machines in {rooms}. An administrator can \
         change that",
        room.as_ref().map_or_else(|| "in no room".to_owned(), |room| format!("in the room {room}"))
    )]
    NotThisMachine {
        /// What has these limits.
        who: &'static str,
        /// The machine.
        machine: MachineName,
        /// Where it is.
        room: Option<RoomName>,
        /// Where he may.
        rooms: Rooms,
    },
    /// Somebody may work with machines, and not at this time.
    #[error(
        "{who} can't restart or shut down machines now{}: it can at {hours}, by the server's clock. An administrator can \
         change that",
        now.map(|now| format!(", at {now}")).unwrap_or_default()
    )]
    NotNow {
        /// What has these limits.
        who: &'static str,
        /// When he may.
        hours: Hours,
        /// What the server's clock shows.
        now: Option<WeekTime>,
    },
    /// Rooms and hours are for those who work with machines and change none.
    #[error("rooms and hours are limits of teachers, and {user} is to be {role}: leave them out")]
    NoTeacher {
        /// Who.
        user: UserName,
        /// What he is to be.
        role: Role,
    },
    /// The same of a token.
    #[error(
        "only a token with the scope operate can be for some rooms: leave the rooms out, or the scope {0}"
    )]
    NoRoomsFor(Right),
    /// Somebody is not logged in by an account of his own.
    #[error("only somebody who is logged in to an account of his own can do this")]
    NoAccount,
    /// A token is not enough to let others in.
    #[error("a token can't manage accounts and tokens: log in, or use a command on the server")]
    NotByToken,
    /// Somebody may not have a say in who may do what.
    #[error(
        "only administrators who are logged in, and commands of root on the server, may do this: no token may"
    )]
    NotKeeper,
    /// A session is not enough to take the account over.
    #[error(
        "your own password is changed on the page of your account, which asks for the former one"
    )]
    OwnPassword,
    /// The name means somebody else.
    #[error("{0} is what the audit log calls somebody without an account: choose another name")]
    UserReserved(UserName),
    /// Only commands on the server may do this.
    #[error("only a command on the server can do this")]
    OnlyOnServer,
    /// There is no such account.
    #[error("there is no account {0}: bootlace user ls shows all")]
    NoUser(UserName),
    /// The name is in use.
    #[error("there is an account {0} already: choose another name")]
    UserTaken(UserName),
    /// Nobody could change anything any more.
    #[error(
        "{0} is the only administrator: make another one first, so that somebody can log in who may change everything"
    )]
    LastAdmin(UserName),
    /// Nobody has so many.
    #[error("there are 1000 accounts: remove some that nobody uses")]
    TooManyUsers,
    /// The password is too easy to guess, or too long.
    #[error("this can't be the password: {0}")]
    BadPassword(&'static str),
    /// There is no such session.
    #[error("there is no session {0}: it has probably ended already")]
    NoSession(u64),
    /// There is no such token.
    #[error("there is no token {0}: bootlace token ls shows all")]
    NoToken(u64),
    /// Nobody keeps track of so many.
    #[error("there are 256 tokens: remove some that nothing uses")]
    TooManyTokens,
    /// The label of a token says nothing, or too much.
    #[error("say in 1 to 64 characters what the token is for")]
    BadLabel,
    /// A remark about an image version is none.
    #[error("a note is one line of at most {NOTE_MAX} bytes, without control characters")]
    BadNote,
    /// All AoE addresses are given out.
    #[error("all AoE addresses are given out: remove machines that are gone")]
    NoShelfSlot,
    /// The image store refuses.
    #[error(transparent)]
    Store(StoreError),
    /// The initrd of an image could not be built.
    #[error("no initrd can be built for {image}/v{version}: {why}")]
    Initrd {
        /// The image.
        image: ImageName,
        /// The version.
        version: u32,
        /// Why, and what to do.
        why: String,
    },
    /// What is no note of a snapshot.
    #[error("a note is one line of {} bytes at most, without control characters", model::NOTE_MAX)]
    BadSnapshotNote,
    /// There is no such snapshot, or no such file in it.
    #[error("{0}")]
    NotInSnapshots(String),
    /// Something can't be done with a snapshot.
    #[error("{0}")]
    Snapshot(String),
    /// The storage server does not do what it was asked.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A machine of this name was removed, and its disk can't be deleted.
    #[error("the disk of a former machine {machine} must be deleted first")]
    DiskLeft {
        /// The name.
        machine: MachineName,
        /// Why it can't.
        source: StorageError,
    },
}

impl Error {
    /// Whether what was asked for does not exist.
    pub fn is_not_found(&self) -> bool {
        match self {
            Self::NoMachine(_)
            | Self::NoVersion { .. }
            | Self::Store(StoreError::Missing { .. })
            | Self::NoUser(_)
            | Self::NoSession(_)
            | Self::NoToken(_)
            | Self::Job(JobError::Missing(_))
            | Self::Incoming(IncomingError::Missing(_)) => true,
            Self::Room(error) => error.is_not_found(),
            Self::Files(FilesError::Missing { .. }) => true,
            Self::Disks(DisksError::Missing { .. } | DisksError::NothingWritten(_)) => true,
            Self::Lease(error) => error.is_not_found(),
            _ => false,
        }
    }

    /// Whether the person who asked can cure it by asking for something else.
    pub fn is_wrong_input(&self) -> bool {
        matches!(
            self,
            Self::NoMac(_)
                | Self::NameMeansElse(_)
                | Self::NoDiskNow(_)
                | Self::BadSnapshotNote
                | Self::NameTaken(_)
                | Self::NotForTrials { .. }
                | Self::MacTaken { .. }
                | Self::LastMac { .. }
                | Self::NotItsMac { .. }
                | Self::TooManyMacs(_)
                | Self::GroupMac(_)
                | Self::NoKeeper(_)
                | Self::NoBusybox { .. }
                | Self::NoImage { .. }
                | Self::OtherArchitecture { .. }
                | Self::NoRescueForArm64(_)
                | Self::NoMenuPassword(_)
                | Self::Room(_)
                | Self::Files(_)
                | Self::Disks(_)
                | Self::NoSystem(_)
                | Self::Version(_)
                | Self::Edit(_)
                | Self::Capture(_)
                | Self::Lease(_)
                | Self::NoRootUrl { .. }
                | Self::RootUrlOfOtherKind { .. }
                | Self::UserTaken(_)
                | Self::UserReserved(_)
                | Self::OwnPassword
                | Self::LastAdmin(_)
                | Self::TooManyUsers
                | Self::BadPassword(_)
                | Self::TooManyTokens
                | Self::BadLabel
                | Self::BadNote
                | Self::NoTeacher { .. }
                | Self::NoRoomsFor(_)
                | Self::Recipe(_)
                | Self::NoBuilder
                | Self::Incoming(IncomingError::BadName(_) | IncomingError::Taken(_))
        )
    }

    /// Whether it is only that nothing can be written where the state is: what is there can be looked at.
    pub fn is_unwritable(&self) -> bool {
        matches!(self, Self::Unwritable { .. })
    }

    /// What is so, without what helps: findings have a remedy of their own.
    pub(crate) fn fact(&self) -> String {
        match self {
            Self::DatabaseGone { path, what } => format!(
                "the database {} is not the one that this server has open: {what}. Nothing is stored any more",
                path.display()
            ),
            Self::Storage(error) => error.fact(),
            _ => self.chain(),
        }
    }

    /// The whole chain of causes in one line.
    pub fn chain(&self) -> String {
        wire::error_chain(self)
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Io { action, path, source } => match Unwritable::of(source.kind()) {
                Some(why) => Self::Unwritable { path, why },
                None => Self::Store(StoreError::Io { action, path, source }),
            },
            other => Self::Store(other),
        }
    }
}

const fn who_may(needed: Right) -> &'static str {
    match needed {
        Right::Read => "people with an account, and tokens,",
        Right::Operate => {
            "teachers and administrators, and tokens with the scope operate or admin,"
        }
        Right::Admin => "administrators, and tokens with the scope admin,",
    }
}

fn seconds_in_words(seconds: u64) -> String {
    match seconds {
        1 => "a second".to_owned(),
        seconds @ 0..=119 => format!("{seconds} seconds"),
        seconds => format!("{} minutes", seconds.div_ceil(60)),
    }
}

/// `None`: the storage server has such roots.
const fn example_url(kind: RootKind) -> Option<&'static str> {
    match kind {
        RootKind::Nfs => Some("nfs://10.0.0.5/srv/debian-12"),
        RootKind::Iscsi => Some("iscsi://10.0.0.5/iqn.2026-11.example:disk/0"),
        RootKind::OtherNbd => Some("nbd://10.0.0.5/fedora"),
        RootKind::OtherAoe => Some("aoe://7.3"),
        RootKind::Nbd | RootKind::Aoe => None,
    }
}

fn other_url(kind: RootKind) -> String {
    match example_url(kind) {
        Some(url) => format!("give one like {url}"),
        None => "such a root is at the storage server, and has none: leave it out, or choose the root kind nfs, iscsi, other-nbd or other-aoe"
            .to_owned(),
    }
}

fn known_images(known: &[ImageName]) -> String {
    if known.is_empty() {
        return "import one first, by bootlace image import FILE --name NAME".to_owned();
    }
    let names: BTreeSet<&str> = known.iter().map(ImageName::as_str).collect();
    let names: Vec<&str> = names.into_iter().collect();
    format!("choose one of {}", names.join(", "))
}

pub(crate) fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| match Unwritable::of(source.kind()) {
        Some(why) => Error::Unwritable { path, why },
        None => Error::Io { action, path, source },
    }
}
