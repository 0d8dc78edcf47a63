//! What a PC's loader asks for, as paths.

use crate::BootChoice;
use alloc::string::{String, ToString as _};
use wire::{Firmware, Mac};

/// The file that is rendered for the machine whose GRUB asks, by TFTP.
pub const MACHINE_PATH: &str = "/grub/machine.cfg";

/// Below this are scripts that are rendered for the machine whose iPXE asks, by TFTP.
pub const IPXE_FOLDER: &str = "/ipxe/";

/// Below this is Memtest86+, for each kind of firmware as GRUB names it: `i386-pc`, `x86_64-efi`.
pub const MEMORY_TEST_FOLDER: &str = "/boot/memory-test/";

/// Below this, by TFTP, PCs ask that must say who they are, since another server gave their address, or their firmware was not heard:
/// [`LoaderClaim`].
const CLAIM_FOLDER: &str = "/grub/pc/";

/// Before the choice in the path of what was chosen.
const CHOSEN: &str = "chosen-";

/// What stands in a path for the `/` of a choice like `debian-12/test`.
const SLASH: &str = "@";

/// What a loader asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoaderAsk {
    /// Nothing: it tells that it has just started.
    Start,
    /// What its machine starts.
    Machine,
    /// The menu of its machine.
    Menu,
    /// What somebody has chosen there.
    Chosen(BootChoice),
}

impl LoaderAsk {
    /// Reads the path of a PC whose address is ours, as its GRUB asks, or its iPXE.
    pub fn parse(path: &str) -> Option<Self> {
        if path == MACHINE_PATH {
            return Some(Self::Machine);
        }
        let word = match path.strip_prefix(IPXE_FOLDER) {
            Some(file) => file.strip_suffix(".ipxe")?,
            None => path.strip_prefix("/grub/")?.strip_suffix(".cfg")?,
        };
        Self::of_word(word).filter(|ask| *ask != Self::Start)
    }

    /// Its word in paths.
    pub(crate) fn word(&self) -> String {
        match self {
            Self::Start => "start".to_string(),
            Self::Machine => "machine".to_string(),
            Self::Menu => "menu".to_string(),
            Self::Chosen(choice) => {
                alloc::format!("{CHOSEN}{}", choice.to_string().replace('/', SLASH))
            }
        }
    }

    /// Where a loader asks for it that says who it is, or does not. In the first case its script completes the path.
    pub(crate) fn path(&self, says_who: bool) -> String {
        let word = self.word();
        match says_who {
            true => {
                alloc::format!("{CLAIM_FOLDER}{word}/$grub_cpu-$grub_platform/$net_default_mac")
            }
            false => alloc::format!("/grub/{word}.cfg"),
        }
    }

    fn of_word(word: &str) -> Option<Self> {
        Some(match word {
            "start" => Self::Start,
            "machine" => Self::Machine,
            "menu" => Self::Menu,
            chosen => {
                let choice = chosen.strip_prefix(CHOSEN).filter(|it| !it.contains('/'))?;
                Self::Chosen(choice.replace(SLASH, "/").parse().ok()?)
            }
        })
    }
}

/// What a PC says of itself whose address another server gave, or that was started from a medium.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoaderClaim {
    /// What it asks for.
    pub ask: LoaderAsk,
    /// Its firmware, as the loader knows it.
    pub firmware: Firmware,
    /// The NIC from which it boots.
    pub mac: Mac,
}

impl LoaderClaim {
    /// Reads the path at which such a PC asks, as [`entry_cfg`](crate::entry_cfg) and [`entry_ipxe`](crate::entry_ipxe) have it
    /// ask: `/grub/pc/machine/x86_64-efi/52:54:00:00:00:01`, or the same below `/ipxe`.
    pub fn parse(path: &str) -> Option<Self> {
        let of_ipxe = path.strip_prefix(IPXE_FOLDER).and_then(|rest| rest.strip_prefix("pc/"));
        let mut parts = of_ipxe.or_else(|| path.strip_prefix(CLAIM_FOLDER))?.split('/');
        let ask = LoaderAsk::of_word(parts.next()?)?;
        let firmware = match parts.next()? {
            "i386-pc" | "i386-pcbios" | "x86_64-pcbios" => Firmware::Bios,
            "x86_64-efi" => Firmware::UefiX64,
            "i386-efi" => Firmware::Other(6),
            "arm64-efi" => Firmware::UefiArm64,
            _ => return None,
        };
        let mac = parts.next()?.parse().ok()?;
        parts.next().is_none().then_some(Self { ask, firmware, mac })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_what_was_written_down() {
        let all = [
            LoaderAsk::Machine,
            LoaderAsk::Menu,
            LoaderAsk::Chosen(BootChoice::LocalDisk),
            LoaderAsk::Chosen(BootChoice::OtherImage("xfce-1.2".parse().unwrap())),
            LoaderAsk::Chosen(BootChoice::OtherImage("xfce-1.2/test".parse().unwrap())),
            LoaderAsk::Chosen(BootChoice::OtherImage("xfce-1.2/v3".parse().unwrap())),
        ];
        for ask in all {
            assert_eq!(LoaderAsk::parse(&ask.path(false)), Some(ask.clone()));
            let path = ask.path(true).replace("$grub_cpu-$grub_platform", "i386-pc");
            let path = path.replace("$net_default_mac", "52:54:00:00:00:01");
            assert_eq!(LoaderClaim::parse(&path).unwrap().ask, ask);
        }
        assert_eq!(LoaderAsk::Machine.path(false), MACHINE_PATH);
        for bad in [
            "/grub/start.cfg",
            "/grub/chosen-.cfg",
            "/grub/chosen-x.cfg",
            "/menu.cfg",
            "/grub/menu",
        ] {
            assert_eq!(LoaderAsk::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn ipxe_asks_for_the_same() {
        assert_eq!(LoaderAsk::parse("/ipxe/machine.ipxe"), Some(LoaderAsk::Machine));
        let chosen = LoaderAsk::Chosen(BootChoice::LocalDisk);
        assert_eq!(LoaderAsk::parse("/ipxe/chosen-local-disk.ipxe"), Some(chosen));
        for bad in ["/ipxe/start.ipxe", "/ipxe/machine.cfg", "/ipxe/.ipxe", "/ipxe/", "/ipxe/pc/"] {
            assert_eq!(LoaderAsk::parse(bad), None, "{bad}");
        }
        let good = "/ipxe/pc/start/i386-pcbios/52:54:00:00:00:01";
        let claim = LoaderClaim::parse(good).unwrap();
        assert_eq!((claim.ask, claim.firmware), (LoaderAsk::Start, Firmware::Bios));
        for end in 0..good.len() {
            assert_eq!(LoaderClaim::parse(&good[..end]), None);
        }
    }

    #[test]
    fn a_claim_is_whole_or_none() {
        let good = "/grub/pc/start/i386-pc/52:54:00:00:00:01";
        assert_eq!(LoaderClaim::parse(good).unwrap().firmware, Firmware::Bios);
        for end in 0..good.len() {
            assert_eq!(LoaderClaim::parse(&good[..end]), None);
        }
        for bad in [
            "/grub/pc/stop/i386-pc/52:54:00:00:00:01",
            &alloc::format!("{good}/"),
            "/grub/pc/start/vax/52:54:00:00:00:01",
        ] {
            assert_eq!(LoaderClaim::parse(bad), None, "{bad}");
        }
    }
}
