//! `bootlace net recipe`: what other DHCP servers must be told.

use crate::boot::grub_images::{ARM64_FILE, BIOS_FILE, UEFI_X64_FILE};
use crate::boot::signed_loader::SignedLoader;
use crate::cli::{note, say};
use crate::config::{Config, Mode};
use crate::network::{Served, networks};
use crate::paths::Paths;
use clap::ValueEnum;
use model::Architecture;
use std::collections::BTreeMap;
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
    let signed = SignedLoader::find(Architecture::X86_64, config.boot.signed_loader.as_deref());
    // It starts with Secure Boot and without. Whoever asks for it by another server's word can't be given another one.
    let uefi = match signed {
        Ok(_) if config.boot.secure_boot != model::SignedLoader::Never => model::SHIM_FILE,
        _ => UEFI_X64_FILE,
    };
    let mut networks_of: BTreeMap<Ipv4Addr, Vec<String>> = BTreeMap::new();
    for Served { network, .. } in networks(&config)? {
        let name = format!("{}/{}", network.subnet, network.prefix);
        networks_of.entry(network.server).or_default().push(name);
    }
    for (own, names) in &networks_of {
        if networks_of.len() > 1 {
            say(format!("# For the PCs in {} only:", names.join(" and ")));
        }
        say(recipe(server, *own, uefi));
    }
    if config.network.mode != Mode::External {
        note(format!(
            "note: this server has mode = \"{}\". What is printed is for mode = \"external\"; beside another DHCP server that is \
             not changed, mode = \"proxy\" needs none of it",
            config.network.mode.word()
        ));
    }
    Ok(())
}

/// What is to be told, as comments and lines of that server: `uefi` is the loader of 64-bit UEFI.
fn recipe(server: Server, own: Ipv4Addr, uefi: &str) -> String {
    let bios = BIOS_FILE;
    let arm64 = ARM64_FILE;
    let by_http = format!("http://{own}/{UEFI_X64_FILE}");
    let arm64_by_http = format!("http://{own}/{arm64}");
    match server {
        Server::Dnsmasq => format!(
            "# /etc/dnsmasq.d/bootlace.conf\n\
             dhcp-vendorclass=set:bootlace-pc,PXEClient\n\
             dhcp-match=set:bootlace-uefi,option:client-arch,7\n\
             dhcp-match=set:bootlace-uefi,option:client-arch,9\n\
             dhcp-match=set:bootlace-arm64,option:client-arch,11\n\
             dhcp-boot=tag:bootlace-pc,tag:!bootlace-uefi,tag:!bootlace-arm64,{bios},{own},{own}\n\
             dhcp-boot=tag:bootlace-pc,tag:bootlace-uefi,{uefi},{own},{own}\n\
             dhcp-boot=tag:bootlace-pc,tag:bootlace-arm64,{arm64},{own},{own}\n\
             dhcp-vendorclass=set:bootlace-http,HTTPClient:Arch:00016\n\
             dhcp-option-force=tag:bootlace-http,60,HTTPClient\n\
             dhcp-boot=tag:bootlace-http,{by_http}\n\
             dhcp-vendorclass=set:bootlace-http-arm64,HTTPClient:Arch:00019\n\
             dhcp-option-force=tag:bootlace-http-arm64,60,HTTPClient\n\
             dhcp-boot=tag:bootlace-http-arm64,{arm64_by_http}"
        ),
        Server::Isc => format!(
            "# /etc/dhcp/dhcpd.conf, outside of any subnet\n\
             option bootlace-firmware code 93 = string;\n\
             class \"bootlace\" {{\n\
             \x20 match if substring (option vendor-class-identifier, 0, 9) = \"PXEClient\";\n\
             \x20 if substring (option bootlace-firmware, 0, 2) = 00:07 or substring (option bootlace-firmware, 0, 2) = 00:09 {{\n\
             \x20   next-server {own};\n\
             \x20   filename \"{uefi}\";\n\
             \x20 }} elsif substring (option bootlace-firmware, 0, 2) = 00:0b {{\n\
             \x20   next-server {own};\n\
             \x20   filename \"{arm64}\";\n\
             \x20 }} elsif not exists bootlace-firmware or substring (option bootlace-firmware, 0, 2) = 00:00 {{\n\
             \x20   next-server {own};\n\
             \x20   filename \"{bios}\";\n\
             \x20 }}\n\
             }}\n\
             class \"bootlace-http\" {{\n\
             \x20 match if substring (option vendor-class-identifier, 0, 10) = \"HTTPClient\" and substring (option bootlace-firmware, 0, 2) = 00:10;\n\
             \x20 option vendor-class-identifier \"HTTPClient\";\n\
             \x20 filename \"{by_http}\";\n\
             }}\n\
             class \"bootlace-http-arm64\" {{\n\
             \x20 match if substring (option vendor-class-identifier, 0, 10) = \"HTTPClient\" and substring (option bootlace-firmware, 0, 2) = 00:13;\n\
             \x20 option vendor-class-identifier \"HTTPClient\";\n\
             \x20 filename \"{arm64_by_http}\";\n\
             }}"
        ),
        Server::Kea => {
            let class = |name: &str, test: &str, then: &str| {
                format!(
                    "  {{\n    \"name\": \"{name}\",\n    \"test\": \"{test}\",\n    {then}\n  }}"
                )
            };
            let is_pxe = "substring(option[60].hex,0,9) == 'PXEClient'";
            let has = |arch: &str| format!("substring(option[93].hex,0,2) == 0x{arch}");
            let loads =
                |file: &str| format!("\"next-server\": \"{own}\", \"boot-file-name\": \"{file}\"");
            let with_class = |url: &str| {
                format!(
                    "\"boot-file-name\": \"{url}\",\n    \"option-data\": [ {{ \"name\": \"vendor-class-identifier\", \"data\": \"HTTPClient\", \
                     \"always-send\": true }} ]"
                )
            };
            let is_http = |arch: &str| {
                format!("substring(option[60].hex,0,10) == 'HTTPClient' and {}", has(arch))
            };
            let classes = [
                class(
                    "bootlace-uefi",
                    &format!("{is_pxe} and ({} or {})", has("0007"), has("0009")),
                    &loads(uefi),
                ),
                class("bootlace-arm64", &format!("{is_pxe} and {}", has("000b")), &loads(arm64)),
                class(
                    "bootlace-bios",
                    &format!("{is_pxe} and (not option[93].exists or {})", has("0000")),
                    &loads(bios),
                ),
                class("bootlace-http", &is_http("0010"), &with_class(&by_http)),
                class("bootlace-http-arm64", &is_http("0013"), &with_class(&arm64_by_http)),
            ];
            format!(
                "// kea-dhcp4.conf, in \"Dhcp4\". If there is a \"client-classes\" already, add these five to its list: a second one stops Kea.\n\
                 \"client-classes\": [\n{}\n]",
                classes.join(",\n")
            )
        }
        Server::Opnsense => format!(
            "OPNsense, ISC DHCPv4, the network of the PCs, Network booting:\n\
             \x20 Enable; Next-server IP {own}; Default BIOS filename {bios}; x64 UEFI/EBC (64-bit) filename {uefi}\n\
             OPNsense, Kea DHCPv4:\n\
             \x20 Options: two entries with Match Code client-system [93], Match Encoding uint16, Match Data 0 or 7,\n\
             \x20          Set Code bootfile-name [67], Set Encoding string, Set Data {bios} or {uefi}\n\
             \x20 Subnets: Next server {own}; Options: both entries\n\
             OPNsense, Dnsmasq DNS & DHCP:\n\
             \x20 DHCP tags: two. DHCP options: two with Type Match, client-arch [93], Value 0 or 7; each sets its tag\n\
             \x20 DHCP boot: two entries, each with its tag; Filename {bios} or {uefi}; Servername and Server address {own}\n\
             pfSense, DHCP Server, Network Booting:\n\
             \x20 Enable; Next Server {own}; Default BIOS File Name {bios}; UEFI 64 bit File Name {uefi}\n\
             Where only one file can be named, choose that of your PCs."
        ),
        Server::Windows => format!(
            "# PowerShell, on the DHCP server\n\
             Add-DhcpServerv4Class -Name \"Bootlace BIOS\" -Type Vendor -Data \"PXEClient:Arch:00000\"\n\
             Add-DhcpServerv4Class -Name \"Bootlace UEFI\" -Type Vendor -Data \"PXEClient:Arch:00007\"\n\
             Add-DhcpServerv4Class -Name \"Bootlace UEFI 9\" -Type Vendor -Data \"PXEClient:Arch:00009\"\n\
             Add-DhcpServerv4Policy -Name \"Bootlace BIOS\" -Condition OR -VendorClass EQ,\"Bootlace BIOS*\"\n\
             Add-DhcpServerv4Policy -Name \"Bootlace UEFI\" -Condition OR -VendorClass EQ,\"Bootlace UEFI*\",EQ,\"Bootlace UEFI 9*\"\n\
             Set-DhcpServerv4OptionValue -PolicyName \"Bootlace BIOS\" -OptionId 66 -Value \"{own}\"\n\
             Set-DhcpServerv4OptionValue -PolicyName \"Bootlace BIOS\" -OptionId 67 -Value \"{bios}\"\n\
             Set-DhcpServerv4OptionValue -PolicyName \"Bootlace UEFI\" -OptionId 66 -Value \"{own}\"\n\
             Set-DhcpServerv4OptionValue -PolicyName \"Bootlace UEFI\" -OptionId 67 -Value \"{uefi}\"\n\
             # Option 60 must not be set on the server: PCs would ask it for their loader. Remove options 66 and 67 of the scope, too."
        ),
        Server::Mikrotik => format!(
            "# RouterOS 7; SERVER and POOL: name and address-pool of the DHCP server on the network of the PCs; NETWORK: that network,\n\
             # such as 10.0.5.0/24. Older versions don't know matching-type: leave it out there.\n\
             /ip dhcp-server network set [find address=NETWORK] next-server={own} boot-file-name={bios}\n\
             /ip dhcp-server option add name=bootlace-uefi code=67 value=\"s'{uefi}'\"\n\
             /ip dhcp-server option sets add name=bootlace-uefi options=bootlace-uefi\n\
             /ip dhcp-server matcher add name=bootlace-uefi-7 server=SERVER address-pool=POOL code=93 value=0x0007 matching-type=exact option-set=bootlace-uefi\n\
             /ip dhcp-server matcher add name=bootlace-uefi-9 server=SERVER address-pool=POOL code=93 value=0x0009 matching-type=exact option-set=bootlace-uefi"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_recipe_names_this_server_and_both_loaders() {
        for server in Server::value_variants() {
            let text = recipe(*server, [10, 0, 5, 1].into(), UEFI_X64_FILE);
            for word in ["10.0.5.1", BIOS_FILE, UEFI_X64_FILE] {
                assert!(text.contains(word), "{server:?} lacks {word}:\n{text}");
            }
        }
    }
}
