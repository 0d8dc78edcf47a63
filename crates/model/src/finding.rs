//! What a person should know: counted, with its cause and what helps.

use crate::{ImageName, MachineName};
use alloc::string::{String, ToString as _};
use core::fmt;
use core::net::Ipv4Addr;
use core::time::Duration;
use serde::ser::SerializeStruct as _;
use serde::{Serialize, Serializer};
use wire::Mac;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Machines can't start, or can't go on.
    Alarm,
    /// Something does not work as it should.
    Warning,
    /// Good to know.
    Notice,
}

impl Level {
    /// The word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Alarm => "alarm",
            Self::Warning => "warning",
            Self::Notice => "notice",
        }
    }
}

/// When a finding goes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passes {
    /// When it is no longer so.
    WhenOver,
    /// When it was not found again for so long.
    After(Duration),
}

impl fmt::Display for Passes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::After(time) = self else { return f.write_str("when it is over") };
        match time.as_secs() {
            seconds @ 0..3600 => write!(f, "after {} min", seconds / 60),
            seconds => write!(f, "after {} h", seconds / 3600),
        }
    }
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $word:literal, $level:ident, $passes:expr, $remedy:literal;)*) => {
        /// What was found.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum FindingKind {
            $($(#[$doc])* $kind,)*
        }

        impl FindingKind {
            /// All kinds, in the order in which a person should look at them within a level.
            pub const ALL: &[Self] = &[$(Self::$kind),*];

            /// Its word, which never changes: scripts and alerts name it.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$kind => $word),* }
            }

            /// The kind of this word.
            pub fn from_word(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|kind| kind.word() == word)
            }

            /// How bad it is.
            pub const fn level(self) -> Level {
                match self { $(Self::$kind => Level::$level),* }
            }

            /// When it goes away.
            pub const fn passes(self) -> Passes {
                match self { $(Self::$kind => $passes),* }
            }

            /// What to do about it, in a sentence.
            pub const fn remedy(self) -> &'static str {
                match self { $(Self::$kind => $remedy),* }
            }
        }
    };
}

const fn minutes(n: u64) -> Passes {
    Passes::After(Duration::from_secs(n * 60))
}

const fn hours(n: u64) -> Passes {
    minutes(n * 60)
}

kinds! {
    /// The database takes nothing.
    StateNotStored = "state-not-stored", Alarm, Passes::WhenOver,
        "Free space on the disk that holds /var/lib/bootlace, or check that disk; if the database is damaged, stop the boot server and put a backup in its place: bootlace backup restore --replace FILE.";
    /// The disk with the state is full.
    StateDiskFull = "state-disk-full", Alarm, Passes::WhenOver,
        "Free space on the disk that holds /var/lib/bootlace; machines that must write wait until then.";
    /// The database was deleted or replaced while the boot server runs.
    StateGone = "state-gone", Alarm, Passes::WhenOver,
        "Save what the server has by bootlace backup create FILE, stop it, and put the database back by bootlace backup restore --replace FILE.";
    /// Another program keeps the database locked.
    StateLocked = "state-locked", Alarm, Passes::WhenOver,
        "Wait for that program to finish, or stop it.";
    /// The storage server does not answer.
    StorageSilent = "storage-silent", Alarm, Passes::WhenOver,
        "Start the storage server; if it runs, its log says more.";
    /// The storage server died and was started again.
    StorageDied = "storage-died", Warning, hours(24),
        "See the log for what it said last; if it says nothing, please report it.";
    /// The folder with machines' disks is not the one that it was.
    LayersElsewhere = "layers-elsewhere", Alarm, Passes::WhenOver,
        "Mount the file system that holds /var/lib/bootlace/layers; a copy of it needs its .layers-mark. If it was exchanged for good, remove /var/lib/bootlace/layers.was-here, and reset machines whose disks are lost.";
    /// A disk that a machine keeps is not there, or damaged.
    DiskMissing = "disk-missing", Alarm, Passes::WhenOver,
        "Mount the file system that holds it, or put it back from a backup; bootlace machine reset NAME begins a new one.";
    /// A disk is of another machine that had the name of this one.
    DiskOfAnother = "disk-of-another", Alarm, Passes::WhenOver,
        "If it is the machine's disk all the same, touch /var/lib/bootlace/layers/NAME/take-over; bootlace machine reset NAME deletes that disk, and begins a new one.";
    /// The storage server's disk has lost what a machine has written.
    WritesLost = "writes-lost", Alarm, Passes::WhenOver,
        "Check the disk with /var/lib/bootlace/layers (dmesg, smartctl), and that nobody has moved or unmounted that folder; then restart the machine.";
    /// Machines are to boot an image of which there is no version.
    ImageMissing = "image-missing", Alarm, Passes::WhenOver,
        "Mount the file system that holds /var/lib/bootlace/images, or import the image again.";
    /// The files of an image version that machines are to boot are damaged or gone.
    ImageDamaged = "image-damaged", Alarm, Passes::WhenOver,
        "Mount the file system that holds it, put it back from a backup, or import the image again.";
    /// The content of an image version is not what was imported; machines start with it all the same.
    ImageChanged = "image-changed", Warning, Passes::WhenOver,
        "Check the disk that holds it (dmesg, smartctl), and import the same disk again, which puts the version back.";
    /// Notes of the image store can't be read.
    ImageStoreUnreadable = "image-store-unreadable", Warning, Passes::WhenOver,
        "Do what the cause says, or look at the disk (dmesg, smartctl); until then no version can be imported, released or removed.";
    /// A version that a room tried was taken back by itself.
    RingTakenBack = "ring-taken-back", Warning, Passes::WhenOver,
        "Look at the boots that failed on the pages of these machines, and import or build a version without that; bootlace image ring stop IMAGE puts this aside.";
    /// Clients are sent away, as a server may have no more files and sockets open.
    NoDescriptors = "no-descriptors", Alarm, hours(1),
        "Allow the server more file descriptors: LimitNOFILE= in systemd, ulimit -n; bootlace check calculates how many.";
    /// The storage server has as many NBD connections as it may have.
    NbdFull = "nbd-full", Alarm, minutes(10),
        "Look on the storage server for a host with many connections (ss -tn sport = :10809), and switch it off.";
    /// A host's NBD connections were closed, as too many open nothing.
    NbdCrowded = "nbd-crowded", Warning, minutes(10),
        "Look for the PC with that address: a program on it is broken, or it keeps others out on purpose.";
    /// NBD clients do not take their replies.
    NbdMemoryShort = "nbd-memory-short", Warning, minutes(10),
        "Look on the storage server for a host that takes nothing (ss -tn sport = :10809, Send-Q), and for a slow network.";
    /// A host asked for a disk and did not prove that it is its own.
    DiskNotProven = "disk-not-proven", Warning, hours(1),
        "Look for the PC with that address; if it is a machine, restart it.";
    /// A certificate by which machines or NBD clients know the storage server is not valid now.
    NbdCertificateInvalid = "nbd-certificate-invalid", Alarm, Passes::WhenOver,
        "Put a new certificate and its key in place, which are taken at once; a new authority needs a restart of both servers. If the certificate is as it should be, set this server's clock.";
    /// A certificate by which browsers know the page is not valid now.
    WebCertificateInvalid = "web-certificate-invalid", Alarm, Passes::WhenOver,
        "Put a new certificate and its key in place, which are taken at once; one below /var/lib/bootlace/web the boot server makes by itself, and bootlace doctor says what keeps it from that. If the certificate is as it should be, set this server's clock.";
    /// A certificate ends soon, or can't be read.
    CertificateTrouble = "certificate-trouble", Warning, Passes::WhenOver,
        "Put a new certificate and its key in place before it ends; they are taken at once, and a new authority after a restart of both servers.";
    /// DHCP requests can't be received.
    DhcpDeaf = "dhcp-deaf", Alarm, Passes::WhenOver,
        "Bring the boot server's network interface up, with its address, and check its cable.";
    /// A configured network has no interface, or that has no address.
    NetworkNotServed = "network-not-served", Alarm, Passes::WhenOver,
        "Make the interface that the cause names, with its address, or correct bootlace.toml and restart both servers; they serve it as soon as it is there.";
    /// The server has another address than the one at which machines that run have their disks.
    ServerRenumbered = "server-renumbered", Warning, hours(24),
        "Give the interface the former address beside the new one (ip address add) until these machines have been restarted.";
    /// Another DHCP server answers on the boot network.
    SecondDhcp = "second-dhcp", Alarm, hours(1),
        "If it is to give the addresses, set mode = \"proxy\" below [network] in bootlace.toml; otherwise switch it off, or keep it from answering on the boot network.";
    /// A PC was told of its loader beside another DHCP server, and took nothing.
    LoaderNotAsked = "loader-not-asked", Warning, hours(1),
        "If another DHCP server gives it an address, let that one name the loader: mode = \"external\", and what bootlace net recipe prints; see also that it does not send option 60 (bootlace check).";
    /// A PC asked for a loader, and the server has none for its firmware.
    NoLoader = "no-loader", Warning, hours(1),
        "For an arm64 PC put GRUB's modules for arm64 on the server (bootlace help arm64); a 32-bit PC, or one of another processor, can't boot from Bootlace.";
    /// A PC gets small packets and no large ones.
    LargePacketsLost = "large-packets-lost", Warning, hours(24),
        "Set mtu below its [network] to what the way to it carries, and give the server's route there the same (bootlace help large-packets); a PC that gave up boots when it is started again.";
    /// No address is left for PCs that asked.
    NoAddressLeft = "no-address-left", Alarm, minutes(10),
        "Make the pool larger or the lease shorter in bootlace.toml.";
    /// PCs that are no machines have all addresses that they may have.
    StrangersShareFull = "strangers-share-full", Warning, minutes(10),
        "Adopt the PCs that belong here; if you don't know them, somebody probably invents them: find out who.";
    /// The address that is reserved for a machine is somebody else's still.
    ReservedInUse = "reserved-in-use", Warning, minutes(10),
        "Switch off the device that has the address, or wait until its lease ends.";
    /// Somebody uses an address that was given to a PC.
    AddressInUse = "address-in-use", Warning, hours(1),
        "Look for a PC with that fixed address, or leave the address out of the pool.";
    /// A relay asks for a network that is not served.
    ForeignRelay = "foreign-relay", Warning, hours(1),
        "Add a [[network]] with the PCs' subnet (bootlace help several-networks), or take Bootlace out of what the relay passes on.";
    /// An image version has no initrd.
    NoInitrd = "no-initrd", Alarm, Passes::WhenOver,
        "Do what the reason says; often the image lacks a driver.";
    /// A file for booting machines can't be read.
    FileUnreadable = "file-unreadable", Alarm, hours(1),
        "Look at the file and the disk that it is on.";
    /// A machine's boot failed.
    MachineFailed = "machine-failed", Warning, Passes::WhenOver,
        "Its page and its kernel log say more.";
    /// A machine hangs.
    MachineStuck = "machine-stuck", Warning, Passes::WhenOver,
        "Its page says how far it got, and what helps.";
    /// A machine waits for something that mostly a person has to do.
    MachineWaiting = "machine-waiting", Warning, Passes::WhenOver,
        "It goes on by itself once that is over.";
    /// A machine's memory for changes is nearly full.
    RamNearlyFull = "ram-nearly-full", Warning, Passes::WhenOver,
        "Delete files there, or restart it, which forgets them.";
    /// A machine has its disk over the network that it boots from, and not over the storage network.
    DiskOverBootNetwork = "disk-over-boot-network", Warning, Passes::WhenOver,
        "Check its other network card, the cable and the switch of that; it takes the storage network when it is restarted.";
    /// What a machine has written takes nearly as much room as it may.
    LayerNearlyFull = "layer-nearly-full", Warning, Passes::WhenOver,
        "Delete files there and run fstrim there, set a larger layer_max in bootlace.toml, or reset it.";
    /// There is no snapshot of a disk that a machine keeps of the last night.
    NoSnapshot = "no-snapshot", Warning, Passes::WhenOver,
        "Mend what the cause names: make room, or delete old snapshots of it. The next night makes one; bootlace machine snapshot does at once.";
    /// The disk of the storage server is nearly full.
    DiskNearlyFull = "disk-nearly-full", Warning, Passes::WhenOver,
        "Delete files there that are not needed, or reset or remove machines; the book tells of old versions of images.";
    /// Somebody speaks in a machine's name.
    WordsRefused = "words-refused", Warning, hours(1),
        "Look for the PC that has the machine's address; the threat model in the book says what it can do.";
    /// A boot began in the name of a machine that runs.
    CandidateBoot = "candidate-boot", Warning, Passes::WhenOver,
        "If nobody restarted it, look for a PC or a dock with the same MAC address; switches with port security show where.";
    /// One host asks for files by far more often than a PC does.
    AsksTooMuch = "asks-too-much", Warning, minutes(10),
        "Look for the PC with that address: a program on it is broken, or it keeps others out on purpose.";
    /// There are more requests for files than are answered.
    NoPlaceLeft = "no-place-left", Warning, minutes(10),
        "Look for a PC that sends requests in invented names; switches with port security stop that.";
    /// The initrd made for a machine's hardware did not bring it up.
    FittedInitrdFailed = "fitted-initrd-failed", Notice, hours(24),
        "None is needed: it starts with the initrd for all machines, and is only slower.";
    /// The storage server has a disk of no machine.
    DiskLeft = "disk-left", Notice, Passes::WhenOver,
        "Add a machine of that name with its network card, which has the disk then; removing that machine deletes the disk.";
    /// The storage server still has the disk of a machine that was removed.
    DiskNotDeleted = "disk-not-deleted", Notice, Passes::WhenOver,
        "Start both servers if they don't run; if they do, fix what the cause names. The disk is then deleted without your help.";
    /// A machine is to have the disk of another one that had its name.
    DiskTakenOver = "disk-taken-over", Notice, Passes::WhenOver,
        "Restart the machine; if it is not to have that disk, remove the file take-over in its folder before.";
    /// The wall clock was set.
    ClockSet = "clock-set", Notice, hours(24),
        "Let NTP keep this server's clock, so that the times of boots and leases are right.";
    /// Backups are not made any more.
    BackupOld = "backup-old", Warning, Passes::WhenOver,
        "See why by systemctl status bootlace-backup; bootlace backup create FOLDER --keep 14 makes one at once.";
    /// Images are not kept elsewhere any more.
    ImageBackupOld = "image-backup-old", Warning, Passes::WhenOver,
        "See why by bootlace job ls; the same bootlace backup images as each night does it at once.";
    /// The process of a job ended without a word.
    JobDied = "job-died", Warning, hours(24),
        "See its log by bootlace job show NUMBER, and whether the kernel ended it for want of memory (dmesg); then begin it again.";
    /// Nobody is told of findings.
    AlertsNotSent = "alerts-not-sent", Warning, Passes::WhenOver,
        "See what fails by bootlace alert test; what is to be told is tried again by itself, and is on this page.";
    /// The boot server is root.
    RunsAsRoot = "runs-as-root", Warning, Passes::WhenOver,
        "Make the user bootlace and restart the servers; bootlace check shows how.";
}

impl fmt::Display for FindingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

impl Serialize for FindingKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.word())
    }
}

/// What a finding is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// The servers as such.
    Server,
    /// A machine.
    Machine(MachineName),
    /// A version of an image.
    Version(ImageName, u32),
    /// A PC that is no machine.
    Pc(Mac),
    /// Who has an address.
    Address(Ipv4Addr),
}

impl Subject {
    /// What it is, in one word.
    pub const fn about(&self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Machine(_) => "machine",
            Self::Version(..) => "image",
            Self::Pc(_) => "pc",
            Self::Address(_) => "address",
        }
    }
}

/// Its name; of the servers it is `server`.
impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server => f.write_str("server"),
            Self::Machine(name) => name.fmt(f),
            Self::Version(image, version) => write!(f, "{image}/v{version}"),
            Self::Pc(mac) => mac.fmt(f),
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// As two fields, `about` and `subject`.
impl Serialize for Subject {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Subject", 2)?;
        fields.serialize_field("about", self.about())?;
        fields.serialize_field("subject", &self.to_string())?;
        fields.end()
    }
}

/// Something that a person should know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is.
    pub kind: FindingKind,
    /// How bad it is.
    pub level: Level,
    /// What it is about.
    #[serde(flatten)]
    pub subject: Subject,
    /// When it was found first, milliseconds since 1970.
    pub since_unix_ms: u64,
    /// When it was found last, milliseconds since 1970.
    pub last_unix_ms: u64,
    /// How often it was found since then; what lasts counts once.
    pub count: u64,
    /// Why, in a sentence; it says "probably" if that is not proven.
    pub cause: String,
    /// What to do, in a sentence.
    pub remedy: String,
}

impl Finding {
    /// Whether a person fixes both at once: only their subjects differ. Lists have such findings side by side.
    pub fn is_like(&self, other: &Self) -> bool {
        self.kind == other.kind && self.cause == other.cause && self.remedy == other.remedy
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;

    #[test]
    fn every_kind_has_a_word_of_its_own_and_a_remedy() {
        let mut words = BTreeSet::new();
        for &kind in FindingKind::ALL {
            let word = kind.word();
            assert!(words.insert(word), "{word} is there twice");
            assert!(word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'), "{word}");
            let remedy = kind.remedy();
            assert!(remedy.ends_with('.') && remedy.len() > 10, "{word}: {remedy}");
            if let Passes::After(time) = kind.passes() {
                assert!(time >= Duration::from_secs(60), "{word} would pass before anybody looks");
            }
        }
    }

    #[test]
    fn times_are_said_as_people_say_them() {
        assert_eq!(minutes(10).to_string(), "after 10 min");
        assert_eq!(hours(24).to_string(), "after 24 h");
        assert_eq!(Passes::WhenOver.to_string(), "when it is over");
    }
}
