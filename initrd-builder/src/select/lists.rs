//! What is known of kernels: which folders and modules an initrd takes, and for what.

use initcfg::RootKind;

/// What an initrd for known hardware takes from a folder; one for all machines takes everything.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fitting {
    /// Drivers of network cards that match.
    Network,
    /// Drivers of network cards on USB that match; only then hosts are of use.
    NetworkUsb,
    /// USB hosts that match, if there is a network card on USB.
    UsbHost,
    /// Drivers that match.
    Bus,
    /// PHYs, if a driver needs them: they have no hardware names before that driver is loaded.
    Phy,
    /// Nothing but dependencies.
    Library,
}

impl Fitting {
    /// Whether it is a driver of a network card.
    pub(super) const fn is_network(self) -> bool {
        matches!(self, Self::Network | Self::NetworkUsb)
    }
}

/// Folders below `kernel/` that are taken, and what for.
const FOLDERS: [(&str, &str, Fitting); 8] = [
    ("drivers/net/ethernet/", "network drivers", Fitting::Network),
    ("drivers/net/phy/", "network drivers (PHYs)", Fitting::Phy),
    ("drivers/net/mdio/", "network drivers (PHYs)", Fitting::Library),
    ("drivers/net/pcs/", "network drivers (PHYs)", Fitting::Library),
    ("drivers/net/usb/", "network drivers (USB)", Fitting::NetworkUsb),
    ("drivers/net/hyperv/", "network drivers (Hyper-V)", Fitting::Network),
    ("drivers/usb/host/", "USB hosts", Fitting::UsbHost),
    ("drivers/pci/controller/", "PCI hosts", Fitting::Bus),
];

/// Modules that drive hardware and are in none of these folders.
pub(super) const DRIVERS: [(&str, &str, Fitting); 9] = [
    ("virtio_net", "network cards of virtual machines", Fitting::Network),
    ("virtio_pci", "virtual machines", Fitting::Bus),
    ("virtio_mmio", "virtual machines", Fitting::Bus),
    ("vmxnet3", "network cards of VMware", Fitting::Network),
    ("xen_netfront", "network cards of Xen", Fitting::Network),
    ("hv_vmbus", "Hyper-V", Fitting::Bus),
    ("xen_pcifront", "Xen", Fitting::Bus),
    ("phy_generic", "USB hosts", Fitting::Library),
    ("usbcore", "network cards on USB", Fitting::Library),
];

/// Drivers in these folders are for switches and for cards that nobody boots a workstation with; they
/// are large, or want firmware of many megabytes.
const FOLDERS_LEFT_OUT: [&str; 5] = [
    "drivers/net/ethernet/mellanox/mlxsw/",
    "drivers/net/ethernet/marvell/prestera/",
    "drivers/net/ethernet/marvell/octeontx2/",
    "drivers/net/ethernet/cavium/liquidio/",
    "drivers/net/ethernet/netronome/",
];

/// Modules that are always taken when the kernel has them, and what for.
pub(super) const WANTED: [(&str, &str); 10] = [
    ("af_packet", "packet sockets"),
    ("overlay", "read-only root file systems"),
    ("crc32c_generic", "checksums of file systems"),
    ("crc32c_intel", "checksums of file systems"),
    ("efi_pstore", "kernel messages after a crash"),
    ("efivarfs", "whether Secure Boot is on"),
    // Whatever the root is: further disks come from the storage server by NBD.
    ("nbd", "disks beside the root"),
    ("zram", "compressed swap space in memory"),
    // What kernels compress it by that have that apart. A third, zstd, comes with btrfs.
    ("lz4", "compressed swap space in memory"),
    ("lzo_rle", "compressed swap space in memory"),
];

/// A module that initrds for known hardware leave out, and what for: few networks have VLANs.
pub(super) const WANTED_IN_GENERIC: (&str, &str) = ("8021q", "VLANs");

/// For roots on logical volumes.
pub(super) const DEVICE_MAPPER: (&str, &str) = ("dm_mod", "roots on LVM");

/// Folders below `kernel/` with drivers of disks that are in a PC, and drivers that are elsewhere. What a module of these finds, such as the
/// disks behind a controller, asks for its own driver by name.
pub(super) const DISK_FOLDERS: [&str; 3] =
    ["drivers/ata/", "drivers/nvme/host/", "drivers/mmc/host/"];
pub(super) const DISK_DRIVERS: [&str; 14] = [
    "sd_mod",
    "virtio_blk",
    "virtio_scsi",
    "usb_storage",
    "uas",
    "mmc_block",
    "vmd",
    "mptspi",
    "mptsas",
    "vmw_pvscsi",
    "hv_storvsc",
    "xen_blkfront",
    "megaraid_sas",
    "mpt3sas",
];
pub(super) const DISK_PURPOSE: &str = "disks that are in the PC";

/// Encryption by the kernel; kernels differ in which of the ciphers are modules.
pub(super) const TLS: (&str, &str) = ("tls", "NBD over TLS");
pub(super) const CIPHERS: [&str; 5] =
    ["aesni_intel", "ghash_clmulni_intel", "ghash_generic", "ctr", "gcm"];

/// Drivers that need one PHY driver and don't say so: tg3 asks for it with the BCM5785 only.
pub(super) const PHYS: [(&str, &str); 1] = [("tg3", "broadcom")];

/// Folders below `kernel/` of which nothing is ever wanted, not even as a dependency of a network
/// driver: they are half of a kernel package. A wrong guess costs time, nothing else.
const FOLDERS_UNLIKELY: [&str; 11] = [
    "sound/",
    "drivers/bluetooth/",
    "drivers/gpu/",
    "drivers/hid/",
    "drivers/hwmon/",
    "drivers/iio/",
    "drivers/infiniband/",
    "drivers/input/",
    "drivers/media/",
    "drivers/net/wireless/",
    "drivers/staging/",
];

/// `false` for the large parts of a kernel that an initrd does not need.
pub(crate) fn is_likely_needed(path: &str) -> bool {
    // Fedora keeps the kernel itself and its symbols beside the modules.
    if !path.contains('/') && !path.starts_with("modules.builtin") {
        return false;
    }
    let Some(path) = path.strip_prefix("kernel/") else { return true };
    // What iSCSI needs lies beside the folders of the large drivers.
    let is_scsi_card = path.strip_prefix("drivers/scsi/").is_some_and(|file| file.contains('/'));
    !is_scsi_card && !FOLDERS_UNLIKELY.iter().any(|folder| path.starts_with(folder))
}

/// What a module of the kernel is taken for, by its folder.
pub(super) fn purpose_of_folder(path: &str) -> Option<(&'static str, Fitting)> {
    let path = path.strip_prefix("kernel/")?;
    if FOLDERS_LEFT_OUT.iter().any(|folder| path.starts_with(folder)) {
        return None;
    }
    let folder = FOLDERS.iter().find(|(folder, ..)| path.starts_with(folder));
    folder.map(|&(_, purpose, fitting)| (purpose, fitting))
}

/// The modules that a kind of root is attached with; others come as their dependencies.
pub(super) const fn modules_of(kind: RootKind) -> &'static [&'static str] {
    match kind {
        RootKind::Nbd | RootKind::OtherNbd => &["nbd"],
        RootKind::Aoe | RootKind::OtherAoe => &["aoe"],
        RootKind::Nfs => &["nfs", "nfsv3", "nfsv4"],
        RootKind::Iscsi => &["iscsi_tcp", "sd_mod"],
    }
}
