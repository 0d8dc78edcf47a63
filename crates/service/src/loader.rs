//! Which loader a PC gets: what is set and known, for the rules of `model`.

use crate::service::Service;
use crate::store::View;
use model::{
    Asker, Firmware, Loader, LoaderChoice, SecureBoot, Stage, choose_loader, last_loader_file,
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

    fn choose(&self, view: &View, mac: Mac, firmware: Firmware, is_ipxe: bool) -> LoaderChoice {
        let rules = &self.options().loader_rules;
        choose_loader(&Asker {
            firmware,
            is_ipxe,
            site: rules.site,
            own: rules.of.get(&mac).copied(),
            has_signed: rules.signed.is_some(),
            signed_by_http: rules.signed == Some(true),
            foreign_dhcp: self.options().network.as_ref().is_some_and(|it| it.foreign_dhcp),
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
        last.stage == Stage::Loader && last_loader_file(&last.detail) == Some(Loader::Own.file())
    })
}
