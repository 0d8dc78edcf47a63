//! What UEFI finds on the medium: GRUB, which uses the firmware's network driver, and iPXE, which brings drivers of its own.
//!
//! GRUB is the distribution's signed one behind its shim, where that is installed: PCs with Secure Boot start it, too.

use super::{CONTENT, FOLDER, MENU_SECONDS, MediumError, file, ipxe, run, write};
use crate::boot::grub_images::medium_grub;
use crate::boot::signed_loader::SignedLoader;
use model::{ENTRY_PATH, MEDIUM_VARIABLE, SHIM_FILE, SIGNED_GRUB_FILE};
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

/// Where firmware looks for a loader on a medium.
const BOOT_FOLDER: &str = "EFI/BOOT";

/// The file that it starts there.
const BOOT_FILE: &str = "BOOTX64.EFI";

/// What GRUB reads, be it the signed one or ours.
const CONFIG: &str = "grub/grub.cfg";

/// The script for which iPXE of 2021 and later looks beside itself.
const SCRIPT: &str = "autoexec.ipxe";

/// So many network cards are tried.
const CARDS_MAX: u8 = 8;

/// The EFI system partition, a file beside the others.
pub(super) const PARTITION: &str = "efi.img";

/// Puts everything for UEFI into the medium's content, and the same into its EFI system partition: which of both GRUB is started
/// from, and sees, is the firmware's choice. `script` is iPXE's.
pub(super) fn make(
    folder: &Path,
    (servers, script): (&[Ipv4Addr], String),
    signed: Option<&SignedLoader>,
) -> Result<(), MediumError> {
    let content = folder.join(CONTENT);
    let partition = &content.join(PARTITION);
    let own_folder = &FOLDER[1..];
    let program = ipxe("ipxe.efi")?;
    let ipxe = fs::read(&program).map_err(file(&program))?;
    let reads_scripts = ipxe.windows(SCRIPT.len()).any(|name| name == SCRIPT.as_bytes());
    let mut files = vec![(CONFIG.to_owned(), menu(servers, reads_scripts).into_bytes())];
    let shim = signed.and_then(|it| it.get(SHIM_FILE)).map(|(_, bytes)| bytes);
    let grub = signed.and_then(|it| it.get(SIGNED_GRUB_FILE)).map(|(_, bytes)| bytes);
    match shim.zip(grub) {
        Some((shim, grub)) => {
            files.push((format!("{BOOT_FOLDER}/{BOOT_FILE}"), shim.to_vec()));
            files.push((format!("{BOOT_FOLDER}/{SIGNED_GRUB_FILE}"), grub.to_vec()));
        }
        None => {
            let early = format!("search.file /{CONFIG} root\nnormal ($root)/{CONFIG}\n");
            let grub = medium_grub(&early, folder)?;
            files.push((format!("{BOOT_FOLDER}/{BOOT_FILE}"), grub));
        }
    }
    files.push((format!("{own_folder}/ipxe.efi"), ipxe));
    files.push((format!("{own_folder}/{SCRIPT}"), script.into_bytes()));

    let n_bytes: usize = files.iter().map(|(_, bytes)| bytes.len()).sum();
    // In sectors, with a quarter more for the file system.
    let sectors = (n_bytes / 512 * 5 / 4 + 2048).next_multiple_of(64);
    let tools = "apt-get install mtools";
    let mut format = Command::new("mformat");
    format.args(["-C", "-i"]).arg(partition).args(["-T", &sectors.to_string()]);
    run(("mformat", tools), format.args(["-h", "2", "-s", "32", "-v", "BOOTLACE", "::"]))?;
    let folders = ["EFI", BOOT_FOLDER, own_folder, "grub"];
    let folders = folders.map(|folder| format!("::/{folder}"));
    run(("mmd", tools), Command::new("mmd").arg("-i").arg(partition).args(folders))?;
    for (name, bytes) in files {
        let path = content.join(&name);
        super::create_dir(path.parent().unwrap_or(&content))?;
        write(&path, &bytes)?;
        let mut copy = Command::new("mcopy");
        copy.arg("-i").arg(partition).arg(&path).arg(format!("::/{name}"));
        run(("mcopy", tools), &mut copy)?;
    }
    Ok(())
}

/// GRUB's menu. An iPXE that reads scripts (of 2021 and later) comes first where Secure Boot does not refuse it, since it brings drivers
/// of its own; an older one does what DHCP says, and is tried where GRUB finds nothing. GRUB does not say that it is
/// firmware when it asks for an address, and tells the server that it was started from here instead. The MAC of which GRUB tells the server is that of the interface which this variable names; GRUB 2.06 and 2.12 look
/// there for the name as it is in names of variables, which is not that of the interface itself (`defmac_get_env` in `net/net.c`).
fn menu(servers: &[Ipv4Addr], ipxe_first: bool) -> String {
    let servers: Vec<String> = servers.iter().map(ToString::to_string).collect();
    let servers = servers.join(" ");
    let first = match ipxe_first {
        true => "  if [ \"$lockdown\" != y ]; then start_ipxe; fi\n",
        false => "",
    };
    let cards: Vec<String> = (0..CARDS_MAX).map(|n| format!("efinet{n}")).collect();
    format!(
        "# Made by bootlace medium build.\n\
         if serial --unit=0 --speed=115200; then terminal_output --append serial; fi\n\
         set timeout={MENU_SECONDS}\n\
         function start_ipxe {{\n\
         \x20 if chainloader {FOLDER}/ipxe.efi; then boot; fi\n\
         }}\n\
         set {MEDIUM_VARIABLE}=1\n\
         export {MEDIUM_VARIABLE}\n\
         menuentry 'Boot from the network (Bootlace)' {{\n\
         {first}\
         \x20 while [ 1 = 1 ]; do\n\
         \x20   for card in {}; do\n\
         \x20     if net_bootp $card; then\n\
         \x20       set net_default_interface=${{card}}_dhcp\n\
         \x20       for server in {servers}; do\n\
         \x20         echo \"Bootlace: looking for the boot server $server\"\n\
         \x20         source (tftp,$server){ENTRY_PATH}\n\
         \x20       done\n\
         \x20       net_del_addr $card:dhcp\n\
         \x20     fi\n\
         \x20   done\n\
         \x20   echo 'Bootlace: no boot server was reached by the drivers of the firmware. Trying iPXE.'\n\
         \x20   start_ipxe\n\
         \x20   echo 'Bootlace: asking again. Where Secure Boot is on, iPXE is refused: the firmware needs a driver for the card then \
         (its setup: UEFI network stack). Where Bootlace gives the addresses, the PC must be one of its machines. Its cards:'\n\
         \x20   net_ls_cards\n\
         \x20   sleep 5\n\
         \x20 done\n\
         }}\n\
         menuentry 'Boot from the network by iPXE and its own drivers (not with Secure Boot)' {{\n\
         \x20 start_ipxe\n\
         }}\n\
         menuentry 'The disk of this PC' {{\n\x20 exit\n}}\n\
         menuentry 'Restart' {{\n\x20 reboot\n}}\n",
        cards.join(" "),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipxe_comes_first_unless_it_is_refused_and_every_card_asks_every_server() {
        let both = [Ipv4Addr::new(10, 0, 5, 1), Ipv4Addr::new(10, 0, 5, 2)];
        let text = menu(&both, true);
        assert!(text.contains("for card in efinet0 efinet1 "), "{text}");
        let ipxe = text.find("if [ \"$lockdown\" != y ]; then start_ipxe; fi").unwrap();
        let servers = text.find("for server in 10.0.5.1 10.0.5.2; do").unwrap();
        assert!(ipxe < servers);
        assert!(text[servers..].contains("source (tftp,$server)/grub/grub.cfg"));
        assert!(text[servers..].contains("  start_ipxe\n"));
        // One that would do what DHCP says, and nothing if that says nothing, comes after the servers.
        let text = menu(&both, false);
        assert!(!text.contains("$lockdown"), "{text}");
        let (_, rest) = text.split_once("for server in").unwrap();
        assert!(rest.contains("  start_ipxe\n"), "{text}");
    }
}
