//! Which loader a PC gets, and by which rule.

use crate::Firmware;
use alloc::string::String;
use core::fmt;
use core::str::FromStr;
use initcfg::{ParseChoiceError, SecureBoot};

/// What firmware is given to load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loader {
    /// Our GRUB for PC BIOS.
    Bios,
    /// Our GRUB for 64-bit UEFI: one small file with all that it needs inside. Secure Boot refuses it.
    Own,
    /// Our GRUB for UEFI of 64-bit ARM PCs.
    OwnArm64,
    /// The distribution's shim, which Microsoft has signed; it loads the distribution's GRUB. PCs with Secure Boot take it, and
    /// those without too.
    Signed,
    /// The same for arm64 PCs.
    SignedArm64,
    /// iPXE for PC BIOS, which uses the network card's own driver.
    IpxeBios,
    /// iPXE for 64-bit UEFI, which uses the firmware's driver. Secure Boot refuses it.
    IpxeUefi,
    /// Our script, for who is iPXE already.
    IpxeScript,
}

impl Loader {
    /// File name under which the firmware asks for it, by TFTP and by HTTP.
    pub const fn file(self) -> &'static str {
        match self {
            Self::Bios => "bl.0",
            Self::Own => "bl.efi",
            Self::OwnArm64 => "bl-arm64.efi",
            Self::Signed => SHIM_FILE,
            Self::SignedArm64 => SHIM_ARM64_FILE,
            Self::IpxeBios => IPXE_FILES[0],
            Self::IpxeUefi => IPXE_FILES[1],
            Self::IpxeScript => "autoexec.ipxe",
        }
    }
}

/// iPXE's programs that firmware loads by PXE, for PC BIOS and for 64-bit UEFI, as iPXE calls them.
pub const IPXE_FILES: [&str; 2] = ["undionly.kpxe", "snponly.efi"];

/// What firmware loads first of [`Loader::Signed`].
pub const SHIM_FILE: &str = "shimx64.efi";

/// What shim loads then: it asks for this name beside its own.
pub const SIGNED_GRUB_FILE: &str = "grubx64.efi";

/// What firmware of arm64 PCs loads first of [`Loader::SignedArm64`].
pub const SHIM_ARM64_FILE: &str = "shimaa64.efi";

/// What that shim loads then.
pub const SIGNED_GRUB_ARM64_FILE: &str = "grubaa64.efi";

/// When PCs with 64-bit UEFI get the signed loader: of the site, and of single machines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SignedLoader {
    /// Unless it is known that the PC's Secure Boot is off.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl SignedLoader {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Auto, Self::Always, Self::Never];

    /// The word in the configuration.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Always => "always",
            Self::Never => "never",
        }
    }
}

impl FromStr for SignedLoader {
    type Err = ParseChoiceError;

    fn from_str(text: &str) -> Result<Self, ParseChoiceError> {
        let found = Self::ALL.into_iter().find(|it| it.word() == text);
        found.ok_or_else(|| {
            ParseChoiceError::new(text, "when to use the signed loader: use auto, always or never")
        })
    }
}

/// Which loaders PCs get: of the site, and of single machines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LoaderFamily {
    /// GRUB, ours or the distribution's.
    #[default]
    Grub,
    /// iPXE, with our scripts.
    Ipxe,
}

impl LoaderFamily {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Grub, Self::Ipxe];

    /// The word in the configuration.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Grub => "grub",
            Self::Ipxe => "ipxe",
        }
    }
}

impl FromStr for LoaderFamily {
    type Err = ParseChoiceError;

    fn from_str(text: &str) -> Result<Self, ParseChoiceError> {
        let found = Self::ALL.into_iter().find(|it| it.word() == text);
        found.ok_or_else(|| ParseChoiceError::new(text, "loader: use grub or ipxe"))
    }
}

/// What is known of a PC that asks for a loader, and of what there is for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker {
    /// Its firmware.
    pub firmware: Firmware,
    /// iPXE asks, be it from the network card's ROM or from a medium.
    pub is_ipxe: bool,
    /// Which loaders the site's PCs get.
    pub family: LoaderFamily,
    /// Which this PC gets, if that is said for it alone.
    pub own_family: Option<LoaderFamily>,
    /// What the site says of the signed loader.
    pub site: SignedLoader,
    /// What is said for this PC alone.
    pub own: Option<SignedLoader>,
    /// Whether the server has a signed loader for its firmware.
    pub has_signed: bool,
    /// Whether that can be started by HTTP: GRUB has to ask the firmware for its files then, as Debian 13's does and Debian 12's
    /// does not.
    pub signed_by_http: bool,
    /// Another server gives the addresses: a GRUB that can't be started by HTTP, as Debian 12's, asks that one for its files.
    pub foreign_dhcp: bool,
    /// Whether the server has a loader for arm64 PCs.
    pub has_arm64: bool,
    /// What its init told in its last boot.
    pub secure_boot: Option<SecureBoot>,
    /// It fetched [`Loader::Own`] in its last boot, and asked for nothing then.
    pub has_refused_own: bool,
}

/// A loader, and why this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoaderChoice {
    /// `None`: there is none for this firmware.
    pub loader: Option<Loader>,
    /// Why.
    pub rule: LoaderRule,
}

/// Why a PC gets its loader. Its text is a sentence for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoaderRule {
    /// A kind of firmware that we have nothing for.
    #[error("there is no loader for this firmware")]
    NoLoader,
    /// The server has nothing to make it of.
    #[error(
        "it is an arm64 PC, and the server lacks GRUB's modules for those (bootlace check says what brings them)"
    )]
    NoArm64,
    /// It is no machine, and such PCs get nothing.
    #[error("it is no machine, and strangers says \"nothing\"")]
    Stranger,
    /// The setting of the PC.
    #[error("loader_of says \"{}\" for this PC", .0.word())]
    OwnFamily(LoaderFamily),
    /// The setting of the site.
    #[error("loader says \"{}\"", .0.word())]
    SiteFamily(LoaderFamily),
    /// There is one for BIOS.
    #[error("BIOS has one loader only")]
    BiosHasOne,
    /// The setting of the PC.
    #[error("secure_boot_of says \"{}\" for this PC", .0.word())]
    OwnSetting(SignedLoader),
    /// The setting of the site.
    #[error("secure_boot says \"{}\"", .0.word())]
    SiteSetting(SignedLoader),
    /// There is none.
    #[error("the server has no signed loader (bootlace check says what is missing)")]
    NoneSigned,
    /// The signed GRUB can't.
    #[error(
        "it asks by UEFI HTTP Boot, and the server's signed loader starts by PXE only (Debian 13's starts by both)"
    )]
    SignedNeedsPxe,
    /// The signed GRUB would ask the wrong server.
    #[error(
        "another DHCP server gives the addresses, and the server's signed loader would ask that one for its files (Debian 13's does not)"
    )]
    SignedNeedsOwnDhcp,
    /// iPXE of 2020 and earlier hands shim a file with padding, which shim refuses.
    #[error("iPXE asks, of which many hand shim a padded file that it refuses")]
    Ipxe,
    /// It said so.
    #[error("its Secure Boot was on in its last boot")]
    IsOn,
    /// It loaded ours, and was silent.
    #[error(
        "it fetched the server's own loader in its last boot and asked for nothing then, as if its Secure Boot had refused it"
    )]
    RefusedOwn,
    /// It said so, and ours is faster.
    #[error("its Secure Boot was off in its last boot, and the server's own loader is faster")]
    IsOff,
    /// Nothing is known.
    #[error(
        "nothing is known of its Secure Boot, and the signed loader starts with and without it"
    )]
    Unknown,
}

/// Chooses the loader for a PC. The first rule that fits counts.
pub fn choose_loader(asker: &Asker) -> LoaderChoice {
    let choice = |loader, rule| LoaderChoice { loader: Some(loader), rule };
    if let Some((loader, rule)) = ipxe(asker) {
        return choice(loader, rule);
    }
    match asker.firmware {
        Firmware::Bios => choice(Loader::Bios, LoaderRule::BiosHasOne),
        Firmware::Other(_) => LoaderChoice { loader: None, rule: LoaderRule::NoLoader },
        Firmware::UefiArm64 | Firmware::UefiArm64Http if !asker.has_arm64 => {
            LoaderChoice { loader: None, rule: LoaderRule::NoArm64 }
        }
        Firmware::UefiArm64 | Firmware::UefiArm64Http => {
            own_or_signed(asker, (Loader::OwnArm64, Loader::SignedArm64))
        }
        Firmware::UefiX64 | Firmware::UefiX64Http => {
            own_or_signed(asker, (Loader::Own, Loader::Signed))
        }
    }
}

/// Which of both a PC with UEFI gets.
fn own_or_signed(asker: &Asker, (own, signed): (Loader, Loader)) -> LoaderChoice {
    let choice = |loader, rule| LoaderChoice { loader: Some(loader), rule };
    let said = asker.own.unwrap_or(asker.site);
    let setting = match asker.own {
        Some(own) => LoaderRule::OwnSetting(own),
        None => LoaderRule::SiteSetting(said),
    };
    match said {
        SignedLoader::Never => choice(own, setting),
        _ if !asker.has_signed => choice(own, LoaderRule::NoneSigned),
        _ if asker.firmware.is_http() && !asker.signed_by_http => {
            choice(own, LoaderRule::SignedNeedsPxe)
        }
        SignedLoader::Always => choice(signed, setting),
        SignedLoader::Auto if asker.is_ipxe => choice(own, LoaderRule::Ipxe),
        SignedLoader::Auto => match asker.secure_boot {
            Some(SecureBoot::On) => choice(signed, LoaderRule::IsOn),
            _ if asker.foreign_dhcp && !asker.signed_by_http => {
                choice(own, LoaderRule::SignedNeedsOwnDhcp)
            }
            _ if asker.has_refused_own => choice(signed, LoaderRule::RefusedOwn),
            Some(SecureBoot::Off | SecureBoot::Setup) => choice(own, LoaderRule::IsOff),
            None => choice(signed, LoaderRule::Unknown),
        },
    }
}

/// What a PC gets of iPXE's family, if it does.
fn ipxe(asker: &Asker) -> Option<(Loader, LoaderRule)> {
    let rule = match (asker.own_family, asker.family) {
        (Some(LoaderFamily::Ipxe), _) => LoaderRule::OwnFamily(LoaderFamily::Ipxe),
        (None, LoaderFamily::Ipxe) => LoaderRule::SiteFamily(LoaderFamily::Ipxe),
        (Some(LoaderFamily::Grub), _) | (None, LoaderFamily::Grub) => return None,
    };
    let loader = match asker.firmware {
        // Debian's iPXE has none for arm64.
        Firmware::Other(_) | Firmware::UefiArm64 | Firmware::UefiArm64Http => return None,
        _ if asker.is_ipxe => Loader::IpxeScript,
        Firmware::Bios => Loader::IpxeBios,
        // What is said for the whole site is not meant for PCs that refuse it.
        Firmware::UefiX64 | Firmware::UefiX64Http
            if asker.own_family.is_none() && asker.secure_boot == Some(SecureBoot::On) =>
        {
            return None;
        }
        Firmware::UefiX64 | Firmware::UefiX64Http => Loader::IpxeUefi,
    };
    Some((loader, rule))
}

/// What a loader's stage says that was fetched: the file's name first.
pub fn loader_detail(file: &str, rest: &str) -> String {
    alloc::format!("{file}, {rest}")
}

/// The file that was fetched last, by what [`loader_detail`] has made, once or more often, with `; ` between.
pub fn last_loader_file(detail: &str) -> Option<&str> {
    let (file, _) = detail.rsplit("; ").next()?.split_once(", ")?;
    Some(file)
}

impl fmt::Display for Loader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bios => f.write_str("bl.0, the server's own GRUB for BIOS"),
            Self::Own => f.write_str("bl.efi, the server's own GRUB"),
            Self::OwnArm64 => f.write_str("bl-arm64.efi, the server's own GRUB for arm64"),
            Self::Signed => f.write_str("shimx64.efi, the distribution's signed loader"),
            Self::SignedArm64 => {
                f.write_str("shimaa64.efi, the distribution's signed loader for arm64")
            }
            Self::IpxeBios => f.write_str("undionly.kpxe, iPXE for BIOS"),
            Self::IpxeUefi => f.write_str("snponly.efi, iPXE for UEFI"),
            Self::IpxeScript => f.write_str("autoexec.ipxe, the script for iPXE"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UEFI: Asker = Asker {
        firmware: Firmware::UefiX64,
        is_ipxe: false,
        family: LoaderFamily::Grub,
        own_family: None,
        site: SignedLoader::Auto,
        own: None,
        has_signed: true,
        signed_by_http: true,
        foreign_dhcp: false,
        has_arm64: true,
        secure_boot: None,
        has_refused_own: false,
    };

    fn check(asker: &Asker, loader: Loader, rule: LoaderRule) {
        assert_eq!(choose_loader(asker), LoaderChoice { loader: Some(loader), rule });
    }

    #[test]
    fn the_first_rule_that_fits_counts() {
        use LoaderRule as Rule;
        let (own, signed) = (Loader::Own, Loader::Signed);
        check(&UEFI, signed, Rule::Unknown);
        let http = Asker { firmware: Firmware::UefiX64Http, ..UEFI };
        check(&http, signed, Rule::Unknown);
        check(&Asker { signed_by_http: false, ..http }, own, Rule::SignedNeedsPxe);
        check(&Asker { signed_by_http: false, ..UEFI }, signed, Rule::Unknown);
        let beside = Asker { foreign_dhcp: true, ..UEFI };
        check(&beside, signed, Rule::Unknown);
        check(&Asker { signed_by_http: false, ..beside }, own, Rule::SignedNeedsOwnDhcp);
        check(&Asker { firmware: Firmware::Bios, ..UEFI }, Loader::Bios, Rule::BiosHasOne);
        check(&Asker { has_signed: false, ..UEFI }, own, Rule::NoneSigned);
        check(&Asker { is_ipxe: true, ..UEFI }, own, Rule::Ipxe);

        let (is_on, is_off) = (
            Asker { secure_boot: Some(SecureBoot::On), ..UEFI },
            Asker { secure_boot: Some(SecureBoot::Off), ..UEFI },
        );
        check(&is_on, signed, Rule::IsOn);
        check(&is_off, own, Rule::IsOff);
        check(&Asker { secure_boot: Some(SecureBoot::Setup), ..UEFI }, own, Rule::IsOff);
        check(&Asker { has_refused_own: true, ..is_off }, signed, Rule::RefusedOwn);

        let never = SignedLoader::Never;
        check(&Asker { site: never, ..is_on }, own, Rule::SiteSetting(never));
        let always = SignedLoader::Always;
        check(&Asker { site: always, is_ipxe: true, ..is_off }, signed, Rule::SiteSetting(always));
        check(&Asker { site: never, own: Some(always), ..UEFI }, signed, Rule::OwnSetting(always));
        check(&Asker { own: Some(SignedLoader::Auto), site: never, ..is_off }, own, Rule::IsOff);
        check(&Asker { site: always, has_signed: false, ..UEFI }, own, Rule::NoneSigned);
        let other = choose_loader(&Asker { firmware: Firmware::Other(6), ..UEFI });
        assert_eq!(other, LoaderChoice { loader: None, rule: Rule::NoLoader });
    }

    #[test]
    fn an_arm64_pc_gets_its_own_loader_or_none_and_never_one_for_x86() {
        let arm = Asker { firmware: Firmware::UefiArm64, ..UEFI };
        check(&arm, Loader::SignedArm64, LoaderRule::Unknown);
        let is_off = Asker { secure_boot: Some(SecureBoot::Off), ..arm };
        check(&is_off, Loader::OwnArm64, LoaderRule::IsOff);
        check(&Asker { has_signed: false, ..arm }, Loader::OwnArm64, LoaderRule::NoneSigned);
        let http = Asker { firmware: Firmware::UefiArm64Http, signed_by_http: false, ..arm };
        check(&http, Loader::OwnArm64, LoaderRule::SignedNeedsPxe);
        for family in LoaderFamily::ALL {
            let asker = Asker { family, ..arm };
            check(&asker, Loader::SignedArm64, LoaderRule::Unknown);
            let without = choose_loader(&Asker { has_arm64: false, ..asker });
            assert_eq!(without, LoaderChoice { loader: None, rule: LoaderRule::NoArm64 });
        }
    }

    #[test]
    fn who_is_to_have_ipxe_gets_it_and_ipxe_its_script() {
        let family = LoaderFamily::Ipxe;
        let (site, own) = (LoaderRule::SiteFamily(family), LoaderRule::OwnFamily(family));
        let uefi = Asker { family, ..UEFI };
        let bios = Asker { firmware: Firmware::Bios, ..uefi };
        check(&uefi, Loader::IpxeUefi, site);
        check(&bios, Loader::IpxeBios, site);
        check(&Asker { is_ipxe: true, ..bios }, Loader::IpxeScript, site);
        let is_on = Asker { secure_boot: Some(SecureBoot::On), ..uefi };
        check(&is_on, Loader::Signed, LoaderRule::IsOn);
        check(&Asker { own_family: Some(family), ..is_on }, Loader::IpxeUefi, own);
        let grub = Asker { own_family: Some(LoaderFamily::Grub), ..bios };
        check(&grub, Loader::Bios, LoaderRule::BiosHasOne);
        let other = choose_loader(&Asker { firmware: Firmware::Other(6), ..uefi });
        assert_eq!(other.loader, None);
    }

    #[test]
    fn what_was_fetched_last_is_known() {
        let shim = loader_detail(SHIM_FILE, "1.0 MB by TFTP in 0.1 s, 2 packets sent again");
        assert_eq!(last_loader_file(&shim), Some(SHIM_FILE));
        let both = alloc::format!("{shim}; {}", loader_detail(SIGNED_GRUB_FILE, "2 MB by TFTP"));
        assert_eq!(last_loader_file(&both), Some(SIGNED_GRUB_FILE));
        assert_eq!(last_loader_file(""), None);
        assert_eq!(last_loader_file("0.8 MB by TFTP in 0.1 s"), None);
    }
}
