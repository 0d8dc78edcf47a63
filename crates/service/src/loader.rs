//! Which loader a PC gets: what is set and known, for the rules of `model`.

use crate::service::Service;
use crate::store::View;
use model::{
    Architecture, Asker, Firmware, Loader, LoaderChoice, LoaderRule, SecureBoot, Stage, Strangers,
    choose_loader, last_loader_file,
};
use wire::Mac;

/// What the firmware of a PC gets, for people.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct GivenLoader {
    /// The file that it is told; `None`: there is none for it.
    pub file: Option<&'static str>,
    /// The rule that decides it, as a sentence.
    pub rule: String,
}

impl Service {
    /// The loader that the firmware of the PC with this NIC gets now. Never waits.
    pub fn choose_loader(&self, mac: Mac, firmware: Firmware, is_ipxe: bool) -> LoaderChoice {
        self.choose(&self.view(), mac, firmware, is_ipxe)
    }

    /// The same for people, unless iPXE asks; `None` in a process that serves no PC.
    pub(crate) fn given_loader(
        &self,
        view: &View,
        mac: Mac,
        firmware: Firmware,
    ) -> Option<GivenLoader> {
        self.options().network.as_ref()?;
        let choice = self.choose(view, mac, firmware, false);
        Some(GivenLoader { file: choice.loader.map(Loader::file), rule: choice.rule.to_string() })
    }

    /// Whether somebody can open locked lines of menus, as far as this process knows.
    pub(crate) fn has_menu_password(&self) -> bool {
        self.options().network.as_ref().is_none_or(|network| network.menu_password.is_some())
    }

    fn choose(&self, view: &View, mac: Mac, firmware: Firmware, is_ipxe: bool) -> LoaderChoice {
        let rules = &self.options().loader_rules;
        let network = self.options().network.as_ref();
        if network.is_some_and(|it| it.strangers == Strangers::Nothing)
            && view.site.machine_by_mac(mac).is_none()
        {
            return LoaderChoice { loader: None, rule: LoaderRule::Stranger };
        }
        let signed = match firmware.architecture() {
            Some(Architecture::Arm64) => rules.signed_arm64,
            Some(Architecture::X86_64) | None => rules.signed,
        };
        choose_loader(&Asker {
            firmware,
            is_ipxe,
            family: rules.family,
            own_family: rules.family_of.get(&mac).copied(),
            site: rules.site,
            own: rules.of.get(&mac).copied(),
            has_signed: signed.is_some(),
            signed_by_http: signed == Some(true),
            has_arm64: rules.has_arm64,
            foreign_dhcp: network.is_some_and(|it| it.foreign_dhcp),
            secure_boot: secure_boot(view, mac),
            has_refused_own: has_refused_own(view, mac),
        })
    }
}

/// Whether firmware starts only what is signed, as init told in the last boot from this NIC that came so far.
pub(crate) fn secure_boot(view: &View, mac: Mac) -> Option<SecureBoot> {
    view.hardware.get(&mac)?.secure_boot()
}

/// Whether the PC fetched our own loader last, and has asked for nothing since: firmware with Secure Boot fetches all of it before
/// it refuses it.
fn has_refused_own(view: &View, mac: Mac) -> bool {
    let last = view.boots.get(&mac).map(|last| &last.boot).filter(|boot| boot.mac == mac);
    last.and_then(|boot| boot.current()).is_some_and(|last| {
        let own = [Loader::Own, Loader::OwnArm64].map(Loader::file);
        last.stage == Stage::Loader
            && last_loader_file(&last.detail).is_some_and(|file| own.contains(&file))
    })
}
