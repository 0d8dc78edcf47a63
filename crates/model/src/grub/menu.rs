//! A machine's menu, as GRUB shows it.

use super::{AsksBy, quote};
use crate::{LoaderAsk, Network, ShownMenu};
use alloc::string::String;
use core::fmt::Write as _;

/// Who may choose locked lines, and open GRUB's command line.
const USER: &str = "admin";

/// The menu. GRUB's command line and the lines themselves are closed to all but who knows the password: somebody at a PC of a
/// school must not get a root shell by two keys.
pub(super) fn menu_cfg(shown: &ShownMenu, network: &Network, asker: AsksBy) -> String {
    let menu = &shown.menu;
    let mut text = alloc::format!(
        "set default=0\nset timeout={}\nset timeout_style=menu\nset superusers={USER}\n",
        menu.seconds()
    );
    if let Some(hash) = &network.menu_password {
        let _ = writeln!(text, "password_pbkdf2 {USER} {}", quote(hash));
    }
    let is_open = |is_locked: bool| !is_locked || network.menu_password.is_some();
    for item in menu.items().iter().filter(|item| is_open(item.is_locked)) {
        let title = shown.title(&item.choice);
        let (title, who) = match item.is_locked {
            true => (alloc::format!("{title} (password)"), ""),
            false => (title, " --unrestricted"),
        };
        let asks = asker.asks_until_it_boots(&LoaderAsk::Chosen(item.choice.clone()));
        let _ = write!(text, "menuentry {}{who} {{\n{asks}}}\n", quote(&title));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Fetch;
    use crate::plan::tests::network;

    #[test]
    fn a_menu_s_lines_ask_for_what_they_say_and_locked_ones_need_the_password() {
        let menu = "image,local-disk,memory-test/locked,image:xfce/locked,20s".parse().unwrap();
        let shown = ShownMenu { menu, image: "debian-12".into() };
        let mut network = network();
        let cfg = |network: &Network| menu_cfg(&shown, network, AsksBy::of(network, Fetch::Itself));
        let text = cfg(&network);
        for part in [
            "set timeout=20\n",
            "set superusers=admin\nmenuentry debian-12 --unrestricted {",
            "source (tftp,10.77.0.1)/grub/chosen-image.cfg\n",
            "menuentry 'The disk of this PC' --unrestricted {",
            "source (tftp,10.77.0.1)/grub/chosen-local-disk.cfg\n",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        assert!(!text.contains("password"), "nobody could open them: {text}");

        network.menu_password = Some("grub.pbkdf2.sha512.10000.AA.BB".into());
        network.foreign_dhcp = true;
        let text = cfg(&network);
        for part in [
            "password_pbkdf2 admin grub.pbkdf2.sha512.10000.AA.BB\n",
            "menuentry 'Memory test (password)' {",
            "(tftp,10.77.0.1)/grub/pc/chosen-image:xfce/$grub_cpu-$grub_platform/$net_default_mac\n",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
    }
}
