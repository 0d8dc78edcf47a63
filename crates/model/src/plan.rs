//! Which machine boots what, and why not.

use crate::{
    Architecture, BootFile, BootId, BootPart, Follows, ImageChoice, ImageName, ImageVersion,
    KernelArgs, Machine, RootKind, ShownMenu, Site, Strangers, WriteMode,
};
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::{Ipv4Addr, SocketAddrV4};
use initcfg::{BootConfig, RamSize, Root, StorageNetwork, ZramPercent};
use wire::{Mac, Route};

impl Network {
    /// The words of [`kernel_args`](Self::kernel_args) that name serial ports, as Memtest86+ reads them, too.
    pub(crate) fn serial_consoles(&self) -> impl Iterator<Item = &str> {
        self.kernel_args.words().filter(|word| word.starts_with("console=ttyS"))
    }
}

/// Facts of the boot network that go into every plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Address of the boot server, as the network's machines reach it.
    pub server: Ipv4Addr,
    /// First address of the network.
    pub subnet: Ipv4Addr,
    /// Prefix length of the boot network.
    pub prefix: u8,
    /// Its machines are behind a relay: what no router passes on does not reach them.
    pub is_relayed: bool,
    /// Default route for the machines.
    pub router: Option<Ipv4Addr>,
    /// Further routes for the machines.
    pub routes: Vec<Route>,
    /// Name servers for the machines.
    pub dns: Vec<Ipv4Addr>,
    /// Time servers (NTP) for the machines.
    pub ntp: Vec<Ipv4Addr>,
    /// DNS domain of the machines.
    pub domain: Option<String>,
    /// How large packets of the machines may be; `None`: as their drivers set it.
    pub mtu: Option<u16>,
    /// The VLAN that the machines are in, once Linux runs; `None`: no tags.
    pub vlan: Option<u16>,
    /// The network of its own over which machines reach their disks; `None`: they do over this one.
    pub storage: Option<StorageNetwork>,
    /// Where the storage server serves NBD, the preferred address first; not empty.
    pub nbd: Vec<SocketAddrV4>,
    /// Kernel parameters for all machines.
    pub kernel_args: KernelArgs,
    /// Addresses are another server's to give: a PC's is known by what it says and is seen to have.
    pub foreign_dhcp: bool,
    /// Machines ask for their address by DHCP once more when their kernel runs, and keep that lease.
    pub own_dhcp: bool,
    /// How much of their memory machines in write mode `ram` give to what they write.
    pub ram: RamSize,
    /// How much swap space machines with little memory have in it, compressed; `None`: none.
    pub zram: Option<ZramPercent>,
    /// What becomes of PCs that are no machines.
    pub strangers: Strangers,
    /// Opens the locked lines of menus, as `grub-mkpasswd-pbkdf2` has made it.
    pub menu_password: Option<String>,
}

impl Network {
    /// Whether the address is one of this network.
    pub fn holds(&self, address: Ipv4Addr) -> bool {
        let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix.min(32))).unwrap_or(0);
        address.to_bits() & mask == self.subnet.to_bits() & mask
    }
}

/// What a machine that asks for its configuration gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// The machine boots.
    Boot(Box<BootPlan>),
    /// The machine waits in the loader and asks again.
    Wait(Waiting),
    /// Its loader asks for the machine's menu.
    ShowMenu,
    /// The menu.
    Menu(ShownMenu),
    /// It starts from its own disk.
    LocalDisk,
    /// The same, after some seconds, of a PC that is no machine; it could wait instead, and why.
    LeaveStranger(Waiting),
    /// It tests its memory.
    MemoryTest,
}

/// Why a machine waits in the loader. Its `Display` says what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// The MAC is not in the machine list.
    UnknownMachine(Mac),
    /// The machine has no image.
    NoImage(crate::MachineName),
    /// The machine's root is on a foreign server, but nobody said on which.
    NoRootUrl(crate::MachineName, RootKind),
    /// The machine's image has no version.
    ImageMissing(crate::MachineName, ImageName),
    /// The machine's image has no version that is for it.
    VersionMissing(crate::MachineName, ImageChoice),
    /// The machine's image is for another kind of processor.
    OtherArchitecture {
        /// The machine.
        machine: crate::MachineName,
        /// What it is.
        is: Architecture,
        /// The image.
        image: ImageName,
        /// What that is for.
        image_is: Architecture,
    },
    /// Something is not ready; the text says what, and that it will be tried again.
    NotReady(String),
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownMachine(mac) => write!(
                f,
                "{mac} is not in the machine list: adopt it on the Discovered page, or by \
                 bootlace machine set NAME --mac {mac} --image IMAGE"
            ),
            Self::NoImage(machine) => write!(
                f,
                "{machine} has no image: choose one on its page, or by \
                 bootlace machine set {machine} --image IMAGE"
            ),
            Self::ImageMissing(machine, image) => write!(
                f,
                "{machine} is to boot the image {image}, which is not there: import it by \
                 bootlace image import FILE --name {image}, or choose another on its page"
            ),
            Self::VersionMissing(machine, ImageChoice { image, follows }) => {
                let lacks: String = match follows {
                    Follows::Released => "no version is released".into(),
                    Follows::Test => "no version is released or to be tested".into(),
                    Follows::Version(version) => alloc::format!("there is no version {version}"),
                };
                write!(
                    f,
                    "{machine} is to boot the image {image}, of which {lacks}: release one on the page Images, or \
                     choose something else on its page"
                )
            }
            Self::NoRootUrl(machine, kind) => write!(
                f,
                "{machine} has no address of its {kind} root: set it on its page, or by \
                 bootlace machine set {machine} --root-url {kind}://ADDRESS/…"
            ),
            Self::OtherArchitecture { machine, is, image, image_is } => write!(
                f,
                "{machine} is an {is} PC, and the image {image} is for {image_is}: choose one for {is} on its page, or by \
                 bootlace machine set {machine} --image IMAGE"
            ),
            Self::NotReady(what) => f.write_str(what),
        }
    }
}

/// Everything that one boot of one machine needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootPlan {
    /// The machine.
    pub machine: Machine,
    /// The image version that it boots.
    pub image: ImageVersion,
    /// What its init is told.
    pub config: BootConfig,
    /// Kernel parameters: the site's, then those of the machine's room, then its own.
    pub kernel_args: Vec<String>,
    /// Names the initrd made for hardware like the machine's; `None`: the one for all machines.
    pub fitted: Option<String>,
    /// The boot stops in a rescue shell, whose archive follows the initrd.
    pub has_rescue: bool,
}

impl BootPlan {
    /// This boot, from another version of its image.
    pub fn on_version(mut self, version: &ImageVersion) -> Self {
        self.config.partition = version.partition;
        self.config.logical_volume.clone_from(&version.logical_volume);
        self.image = version.clone();
        self
    }

    /// The kernel on the boot server.
    pub fn kernel(&self) -> BootFile {
        self.file(BootPart::Kernel)
    }

    /// The initrd on the boot server.
    pub fn initrd(&self) -> BootFile {
        self.file(match &self.fitted {
            Some(key) => BootPart::FittedInitrd(key.clone()),
            None => BootPart::Initrd,
        })
    }

    /// Lets the boot begin only if the image is for what the machine is.
    ///
    /// # Errors
    /// It is for something else.
    pub fn for_architecture(self: Box<Self>, is: Architecture) -> Result<Box<Self>, Waiting> {
        let (image, image_is) = (&self.image.image, self.image.architecture);
        if image_is == is {
            return Ok(self);
        }
        Err(Waiting::OtherArchitecture {
            machine: self.machine.name.clone(),
            is,
            image: image.clone(),
            image_is,
        })
    }

    fn file(&self, part: BootPart) -> BootFile {
        BootFile { image: self.image.image.clone(), version: self.image.version, part }
    }

    /// Path of what only this boot gets, to follow the initrd.
    pub fn host_path(&self) -> String {
        alloc::format!("{}{}", initcfg::HOST_ARCHIVE_PATH, self.config.boot)
    }

    /// The kernel command line without the kernel's name.
    pub fn command_line(&self) -> String {
        let mut words = self.kernel_args.clone();
        // A frozen PC helps nobody: a kernel that dies starts over.
        if !words.iter().any(|word| word.starts_with("panic=")) {
            words.push("panic=30".into());
        }
        // All machines of an image have the image's, unless they are told otherwise.
        if !words.iter().any(|word| word.starts_with(MACHINE_ID)) {
            words.push(alloc::format!("{MACHINE_ID}{}", machine_id(self.machine.mac)));
        }
        words.push(self.config.to_command_line());
        words.join(" ")
    }
}

/// systemd's parameter for the machine-id, meant for systems that boot over the network (systemd(1)).
const MACHINE_ID: &str = "systemd.machine_id=";

/// The machine-id of the machine with this NIC: equal in each of its boots, and no other machine's. In form it is a
/// random (version 4) UUID, and it ends with the MAC.
fn machine_id(mac: Mac) -> String {
    alloc::format!("b0071ace5eed4d1cab1e{}", mac.compact())
}

/// Decides how the PC with `mac`, which has leased `address`, boots its image, or the `other` one, as boot number `boot`; or why it
/// can't yet. A machine on which an image is being changed boots that, and no other one.
///
/// # Errors
/// It has to wait.
pub fn plan(
    site: &Site,
    network: &Network,
    (mac, address): (Mac, Ipv4Addr),
    boot: BootId,
    other: Option<&ImageChoice>,
) -> Result<Box<BootPlan>, Waiting> {
    let machine = site.machine_by_mac(mac).ok_or(Waiting::UnknownMachine(mac))?.as_it_boots();
    let other = other.filter(|_| machine.edit.is_none() && machine.capture.is_none());
    let Some(image) = other.or(machine.image.as_ref()) else {
        return Err(Waiting::NoImage(machine.name.clone()));
    };
    let chosen = other.map_or_else(|| site.chosen_for(&machine), |other| site.chosen(other));
    let Some(version) = chosen else {
        let name = machine.name.clone();
        return Err(match site.images.iter().any(|version| version.image == image.image) {
            true => Waiting::VersionMissing(name, image.clone()),
            false => Waiting::ImageMissing(name, image.image.clone()),
        });
    };
    if version.is_data() {
        return Err(Waiting::NotReady(alloc::format!(
            "{} is to boot the image {}, which is no system, but a disk beside roots: choose another on its page, or by bootlace machine \
             set {} --image IMAGE",
            machine.name,
            version.image,
            machine.name
        )));
    }
    let root = match machine.root {
        RootKind::Nbd => {
            Root::Nbd { servers: network.nbd.clone(), export: machine.name.as_str().into() }
        }
        RootKind::Aoe | RootKind::OtherAoe if network.is_relayed && network.storage.is_none() => {
            return Err(Waiting::NotReady(alloc::format!(
                "{} has an AoE root, which it can't reach at {address} behind a relay, as no router passes on AoE: choose NBD on \
                 its page, or by bootlace machine set {} --root nbd",
                machine.name,
                machine.name
            )));
        }
        RootKind::Aoe => {
            Root::Aoe { shelf: machine.shelf_slot.shelf, slot: machine.shelf_slot.slot }
        }
        RootKind::Nfs | RootKind::Iscsi | RootKind::OtherNbd | RootKind::OtherAoe => {
            match &machine.root_url {
                Some(url) if url.kind() == machine.root => Root::Foreign(url.clone()),
                _ => return Err(Waiting::NoRootUrl(machine.name.clone(), machine.root)),
            }
        }
    };
    let storage = network.storage.filter(|storage| is_reached_over(storage, &root));
    let is_in_memory = machine.writes() == WriteMode::Ram;
    let config = BootConfig {
        server: network.server,
        boot,
        mac,
        address: (!network.own_dhcp).then_some((address, network.prefix)),
        router: network.router,
        routes: network.routes.clone(),
        dns: network.dns.clone(),
        ntp: network.ntp.clone(),
        domain: network.domain.clone(),
        mtu: network.mtu,
        vlan: network.vlan,
        storage,
        host_name: machine.name.as_str().into(),
        root,
        // The image's is that of its own disk.
        partition: version.partition.filter(|_| !machine.root.is_foreign()),
        logical_volume: version.logical_volume.clone().filter(|_| !machine.root.is_foreign()),
        ram: is_in_memory.then_some(network.ram),
        capture: machine.capture.as_ref().map(|capture| capture.order.clone()),
    };
    let of_room = site.room_of(&machine).into_iter().flat_map(|room| room.kernel_args.words());
    let kernel_args = network.kernel_args.words().chain(of_room).chain(machine.kernel_args.words());
    let kernel_args = kernel_args.map(String::from).collect();
    let image = version.clone();
    Ok(Box::new(BootPlan {
        machine: machine.into_owned(),
        image,
        config,
        kernel_args,
        fitted: None,
        has_rescue: false,
    }))
}

/// Whether the root is one that a machine reaches over the storage network.
fn is_reached_over(storage: &StorageNetwork, root: &Root) -> bool {
    match root {
        Root::Nbd { servers, .. } => servers.iter().any(|server| storage.holds(*server.ip())),
        Root::Aoe { .. } => true,
        Root::Foreign(url) => url.server().is_none_or(|server| storage.holds(*server.ip())),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{FileSystem, Menu, Origins, Room, RootUrl, ShelfSlot};
    use alloc::string::ToString;
    use alloc::vec;

    pub(crate) const MAC: Mac = Mac([0x52, 0x54, 0, 0, 0, 1]);
    /// The machine's second NIC.
    const SECOND: Mac = Mac([0x52, 0x54, 0, 0, 0, 2]);
    pub(crate) const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);

    pub(crate) fn network() -> Network {
        let server = Ipv4Addr::new(10, 77, 0, 1);
        Network {
            server,
            subnet: Ipv4Addr::new(10, 77, 0, 0),
            prefix: 24,
            is_relayed: false,
            router: None,
            routes: Vec::new(),
            dns: vec![],
            ntp: vec![],
            domain: None,
            mtu: None,
            vlan: None,
            storage: None,
            nbd: vec![SocketAddrV4::new(server, 10809)],
            kernel_args: "console=ttyS0".parse().unwrap(),
            foreign_dhcp: false,
            own_dhcp: false,
            ram: RamSize::default(),
            zram: None,
            strangers: Strangers::Wait,
            menu_password: None,
        }
    }

    pub(crate) fn site() -> Site {
        let image: ImageName = "debian-12".parse().unwrap();
        let version = |version| ImageVersion {
            image: image.clone(),
            version,
            digest: "00".repeat(32),
            size_bytes: 1 << 30,
            partition: None,
            logical_volume: None,
            file_system: FileSystem::Ext4,
            kernel_version: "6.1.0-56-amd64".into(),
            architecture: Architecture::X86_64,
            os_name: None,
            imported_unix: 0,
        };
        Site::new(vec![lab_07()], vec![version(1), version(2)])
    }

    #[test]
    fn what_was_taken_back_is_nothing_to_go_back_to() {
        use crate::VersionState::{self, Released, Retired, Test};
        let check = |states: [VersionState; 4], expected: Option<u32>| {
            let name: ImageName = "debian-12".parse().unwrap();
            let mut site = site();
            let like = site.images[0].clone();
            site.images.extend([3, 4].map(|version| ImageVersion { version, ..like.clone() }));
            let states = (1..).zip(states).map(|(version, state)| ((name.clone(), version), state));
            let site = site.with_states(states.collect());
            assert_eq!(site.released_before(&name).map(|version| version.version), expected);
            assert_eq!(site.by_image().count(), 1);
        };
        check([Released, Retired, Released, Test], Some(1));
        check([Released, Released, Released, Released], Some(3));
        check([Retired, Retired, Released, Test], None);
        check([Retired, Test, Retired, Retired], None);
    }

    #[test]
    fn a_machine_boots_what_is_for_it() {
        use crate::VersionState::{self, Draft, Released, Retired, Test};
        let check = |choice: &str, states: [VersionState; 2], expected: Result<u32, &str>| {
            let name: ImageName = "debian-12".parse().unwrap();
            let states = (1..).zip(states).map(|(version, state)| ((name.clone(), version), state));
            let mut site = site().with_states(states.collect());
            site.machines[0].image = Some(choice.parse().unwrap());
            match (plan(&site, &network(), (MAC, ADDRESS), 42, None), expected) {
                (Ok(plan), Ok(version)) => assert_eq!(plan.image.version, version),
                (Err(why), Err(text)) => assert!(why.to_string().contains(text), "{why}"),
                (planned, _) => panic!("{choice}: {planned:?}"),
            }
        };
        check("debian-12", [Released, Released], Ok(2));
        check("debian-12", [Released, Test], Ok(1));
        check("debian-12/test", [Released, Test], Ok(2));
        check("debian-12/test", [Released, Draft], Ok(1));
        check("debian-12", [Released, Retired], Ok(1));
        check("debian-12/v2", [Released, Retired], Ok(2));
        check("debian-12/v1", [Draft, Released], Ok(1));
        check("debian-12", [Retired, Test], Err("of which no version is released: "));
        check("debian-12/test", [Retired, Draft], Err("released or to be tested"));
        check("debian-12/v3", [Released, Released], Err("there is no version 3"));
    }

    pub(crate) fn lab_07() -> Machine {
        Machine {
            name: "lab-07".parse().unwrap(),
            mac: MAC,
            other_macs: vec![SECOND],
            image: Some("debian-12".parse().unwrap()),
            root: RootKind::Nbd,
            root_url: None,
            write_mode: WriteMode::Discard,
            shelf_slot: ShelfSlot { shelf: 1, slot: 7 },
            kernel_args: "quiet".parse().unwrap(),
            reset_disk: false,
            room: None,
            seat: None,
            tags: Vec::new(),
            menu: Menu::default(),
            next_boot: None,
            edit: None,
            capture: None,
            set_by: Origins::OWN,
        }
    }

    fn waits(site: &Site, mac: Mac, remedy: &str) {
        let why = plan(site, &network(), (mac, ADDRESS), 1, None).unwrap_err().to_string();
        assert!(why.contains(remedy), "{why}");
    }

    #[test]
    fn a_machine_boots_the_newest_version_of_its_image() {
        let plan = plan(&site(), &network(), (MAC, ADDRESS), 42, None).unwrap();
        assert_eq!(plan.image.version, 2);
        assert_eq!(plan.initrd().to_string(), "/boot/debian-12/2/initrd");
        let line = plan.command_line();
        assert!(
            line.starts_with(
                "console=ttyS0 quiet panic=30 \
                 systemd.machine_id=b0071ace5eed4d1cab1e525400000001 bootlace.server=10.77.0.1"
            ),
            "{line}"
        );
        assert!(line.contains("bootlace.root=nbd:10.77.0.1:10809:lab-07"), "{line}");
    }

    #[test]
    fn a_room_s_kernel_parameters_stand_between_the_site_s_and_the_machine_s() {
        let mut room = Room::new("r101".parse().unwrap());
        room.kernel_args = "splash vga=791".parse().unwrap();
        let mut site = site().with_rooms(vec![room], Default::default());
        site.machines[0].room = Some("r101".parse().unwrap());
        let plan = plan(&site, &network(), (MAC, ADDRESS), 42, None).unwrap();
        let line = plan.command_line();
        assert!(line.starts_with("console=ttyS0 splash vga=791 quiet "), "{line}");
    }

    #[test]
    fn a_machine_is_the_same_whichever_of_its_nics_it_boots_from() {
        let lines = [MAC, SECOND]
            .map(|mac| plan(&site(), &network(), (mac, ADDRESS), 42, None).unwrap().command_line());
        let nic = |mac: Mac| alloc::format!("bootlace.mac={mac}");
        assert!(lines[1].contains(&nic(SECOND)), "init takes the NIC that the firmware had");
        assert_eq!(lines[0], lines[1].replace(&nic(SECOND), &nic(MAC)));
    }

    #[test]
    fn a_machine_with_an_aoe_root_gets_its_shelf_and_slot() {
        let mut site = site();
        site.machines[0].root = RootKind::Aoe;
        let relayed = Network { is_relayed: true, ..network() };
        let why = plan(&site, &relayed, (MAC, ADDRESS), 42, None).unwrap_err();
        assert!(why.to_string().contains("choose NBD"), "{why}");
        let plan = plan(&site, &network(), (MAC, ADDRESS), 42, None).unwrap();
        let line = plan.command_line();
        assert!(line.contains("bootlace.root=aoe:1.7") && !line.contains("bootlace.ram"), "{line}");
        let storage = Some("10.20.0.1/24".parse().unwrap());
        let relayed = Network { storage, ..relayed };
        let plan = super::plan(&site, &relayed, (MAC, ADDRESS), 42, None).unwrap();
        let line = plan.command_line();
        assert!(
            line.contains(" bootlace.storage=10.20.0.1/24 "),
            "it is on no relay's way: {line}"
        );
    }

    #[test]
    fn a_root_that_is_in_the_storage_network_is_reached_over_it() {
        let storage: Option<StorageNetwork> = Some("10.20.0.1/24".parse().unwrap());
        let check = |root: &str, is_over_it: bool| {
            let mut site = site();
            let mut network = Network { storage, ..network() };
            match root.parse::<RootUrl>() {
                Ok(url) => {
                    (site.machines[0].root, site.machines[0].root_url) = (url.kind(), Some(url));
                }
                Err(_) => network.nbd.insert(0, root.parse().unwrap()),
            }
            let plan = plan(&site, &network, (MAC, ADDRESS), 42, None).unwrap();
            assert_eq!(plan.config.storage, storage.filter(|_| is_over_it), "{root}");
        };
        check("10.20.0.1:10809", true);
        check("10.77.0.9:10809", false);
        check("nfs://10.20.0.5/srv/debian-12", true);
        check("nfs://10.77.0.5/srv/debian-12", false);
        check("iscsi://10.20.0.5/iqn.2026-11.example:disk/0", true);
        check("nbd://10.20.0.5/fedora", true);
        check("nbd://10.77.0.5/fedora", false);
        check("aoe://7.3", true);
    }

    #[test]
    fn a_machine_that_writes_to_its_memory_is_told_how_much() {
        let mut site = site();
        site.machines[0].write_mode = WriteMode::Ram;
        let plan = plan(&site, &network(), (MAC, ADDRESS), 42, None).unwrap();
        assert!(plan.command_line().contains(" bootlace.ram=50%"));
    }

    #[test]
    fn a_foreign_root_is_told_as_it_was_typed() {
        for url in [
            "nfs://10.0.0.5/srv/debian-12?vers=3,ro",
            "iscsi://10.0.0.5/iqn.2026-11.example:disk/0?partition=2",
            "nbd://10.0.0.5/fedora?lv=vg0/root",
            "aoe://7.3",
        ] {
            let mut site = site();
            site.images[1].partition = Some(7);
            let url: RootUrl = url.parse().unwrap();
            (site.machines[0].root, site.machines[0].root_url) = (url.kind(), Some(url.clone()));
            let plan = plan(&site, &network(), (MAC, ADDRESS), 42, None).unwrap();
            let (line, root) = (plan.command_line(), alloc::format!("bootlace.root={url}"));
            assert!(line.split(' ').any(|word| word == root), "{line}");
        }
        let mut site = site();
        site.machines[0].root = RootKind::Iscsi;
        waits(&site, MAC, "bootlace machine set lab-07 --root-url iscsi://ADDRESS/");
    }

    #[test]
    fn who_can_not_boot_is_told_what_to_do() {
        let mut site = site();
        waits(&site, Mac::BROADCAST, "adopt it on the Discovered page");
        site.images.clear();
        waits(&site, MAC, "import it by bootlace image import FILE --name debian-12");
        site.machines[0].image = None;
        waits(&site, MAC, "choose one on its page");
    }
}
