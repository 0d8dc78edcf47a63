//! `bootlace net recipe`: what other DHCP servers must be told.

use crate::boot::grub_images::{BIOS_FILE, UEFI_X64_FILE};
use crate::cli::{note, say};
use crate::config::{Config, Mode};
use crate::network::network;
use crate::paths::Paths;
use clap::ValueEnum;
use std::net::Ipv4Addr;

/// A DHCP server of somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Server {
    /// dnsmasq, also on OpenWrt and Pi-hole
    Dnsmasq,
    /// ISC dhcpd
    Isc,
    /// Kea
    Kea,
    /// OPNsense and pfSense
    Opnsense,
    /// Windows Server, by PowerShell
    Windows,
    /// MikroTik RouterOS 7
    Mikrotik,
}

/// Prints it.
pub(super) fn print(server: Server, paths: &Paths) -> anyhow::Result<()> {
    let config = Config::load(&paths.config())?;
    say(recipe(server, network(&config)?.server));
    if config.network.mode != Mode::External {
        note(format!(
            "note: this server has mode = \"{}\". What is printed is for mode = \"external\"; beside another DHCP server that is \
             not changed, mode = \"proxy\" needs none of it",
            config.network.mode.word()
        ));
    }
    Ok(())
}

/// What is to be told, as comments and lines of that server.
fn recipe(server: Server, own: Ipv4Addr) -> String {
    let (bios, uefi) = (BIOS_FILE, UEFI_X64_FILE);
    match server {
        Server::Dnsmasq => format!(
            "# /etc/dnsmasq.d/bootlace.conf\n\
             dhcp-vendorclass=set:bootlace-pc,PXEClient\n\
             dhcp-match=set:bootlace-uefi,option:client-arch,7\n\
             dhcp-match=set:bootlace-uefi,option:client-arch,9\n\
             dhcp-boot=tag:bootlace-pc,tag:!bootlace-uefi,{bios},{own},{own}\n\
             dhcp-boot=tag:bootlace-pc,tag:bootlace-uefi,{uefi},{own},{own}"
        ),
        Server::Isc => format!(
            "# /etc/dhcp/dhcpd.conf, outside of any subnet\n\
             option bootlace-firmware code 93 = unsigned integer 16;\n\
             class \"bootlace\" {{\n\
             \x20 match if substring (option vendor-class-identifier, 0, 9) = \"PXEClient\";\n\
             \x20 next-server {own};\n\
             \x20 if option bootlace-firmware = 7 or option bootlace-firmware = 9 {{\n\
             \x20   filename \"{uefi}\";\n\
             \x20 }} else {{\n\
             \x20   filename \"{bios}\";\n\
             \x20 }}\n\
             }}"
        ),
        Server::Kea => {
            let class = |name: &str, test: &str, file: &str| {
                format!(
                    "  {{\n    \"name\": \"{name}\",\n    \"test\": \"substring(option[60].hex,0,9) == 'PXEClient' and {test}\",\n    \
                     \"next-server\": \"{own}\",\n    \"boot-file-name\": \"{file}\"\n  }}"
                )
            };
            let uefi_test = "(option[93].hex == 0x0007 or option[93].hex == 0x0009)";
            format!(
                "// kea-dhcp4.conf, in \"Dhcp4\"\n\"client-classes\": [\n{},\n{}\n]",
                class("bootlace-uefi", uefi_test, uefi),
                class("bootlace-bios", "option[93].hex == 0x0000", bios)
            )
        }
        Server::Opnsense => format!(
            "Services, DHCPv4 (ISC or Kea), the network of the PCs, network booting:\n\
             \x20 Enable network booting            yes\n\
             \x20 Next server                       {own}\n\
             \x20 Default BIOS file name            {bios}\n\
             \x20 x64 UEFI/EBC (64-bit) file name   {uefi}\n\
             Where only one file can be named, choose that of your PCs."
        ),
        Server::Windows => format!(
            "# PowerShell, on the DHCP server\n\
             Add-DhcpServerv4Class -Name \"Bootlace BIOS\" -Type Vendor -Data \"PXEClient:Arch:00000\"\n\
             Add-DhcpServerv4Class -Name \"Bootlace UEFI\" -Type Vendor -Data \"PXEClient:Arch:00007\"\n\
             Add-DhcpServerv4Policy -Name \"Bootlace BIOS\" -Condition OR -VendorClass EQ,\"Bootlace BIOS*\"\n\
             Add-DhcpServerv4Policy -Name \"Bootlace UEFI\" -Condition OR -VendorClass EQ,\"Bootlace UEFI*\"\n\
             Set-DhcpServerv4OptionValue -PolicyName \"Bootlace BIOS\" -OptionId 66 -Value \"{own}\"\n\
             Set-DhcpServerv4OptionValue -PolicyName \"Bootlace BIOS\" -OptionId 67 -Value \"{bios}\"\n\
             Set-DhcpServerv4OptionValue -PolicyName \"Bootlace UEFI\" -OptionId 66 -Value \"{own}\"\n\
             Set-DhcpServerv4OptionValue -PolicyName \"Bootlace UEFI\" -OptionId 67 -Value \"{uefi}\"\n\
             # Option 60 must not be set on the server: PCs would ask it for their loader."
        ),
        Server::Mikrotik => format!(
            "# RouterOS 7; SERVER is the name of the DHCP server on the network of the PCs\n\
             /ip dhcp-server network set [find] next-server={own} boot-file-name={bios}\n\
             /ip dhcp-server option add name=bootlace-uefi code=67 value=\"'{uefi}'\"\n\
             /ip dhcp-server option sets add name=bootlace-uefi options=bootlace-uefi\n\
             /ip dhcp-server matcher add name=bootlace-uefi server=SERVER code=93 value=0x0007 option-set=bootlace-uefi"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_recipe_names_this_server_and_both_loaders() {
        for server in Server::value_variants() {
            let text = recipe(*server, [10, 0, 5, 1].into());
            for word in ["10.0.5.1", BIOS_FILE, UEFI_X64_FILE] {
                assert!(text.contains(word), "{server:?} lacks {word}:\n{text}");
            }
        }
    }
}
