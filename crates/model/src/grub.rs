//! Configuration for our GRUB images.
//!
//! GRUB reads [`ENTRY_PATH`], the same for everybody, which asks for [`MACHINE_PATH`] again and
//! again until that boots. A loop rather than files that name each other: each `configfile` nests
//! in the former, and a PC that waits over a week-end would run out of memory.

mod local_disk;
mod menu;

use crate::loader_ask::{LoaderAsk, MEMORY_TEST_FOLDER};
use crate::{ASK_AGAIN, Network, Plan};
use alloc::string::{String, ToString as _};
use core::fmt::Write;
use core::net::Ipv4Addr;
use initcfg::RESCUE_ARCHIVE_PATH;

/// The first file that GRUB asks for, by TFTP.
pub const ENTRY_PATH: &str = "/grub/grub.cfg";

/// What signed GRUBs ask for before that, in the folders of their modules. It is the same file.
pub const SIGNED_ENTRY_PATHS: [&str; 2] = ["/grub/x86_64-efi/grub.cfg", "/grub/arm64-efi/grub.cfg"];

const ASK_AGAIN_SECONDS: u64 = ASK_AGAIN.as_secs();

/// The variable that each configuration sets first: else the loop believes that none came.
const ANSWERED: &str = "bootlace_answered";

/// How GRUB fetches files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetch {
    /// By its own TFTP, and its own HTTP if it has it.
    Itself,
    /// By the firmware's HTTP, as signed GRUBs that were started by UEFI HTTP Boot do. There is no TFTP then: GRUB 2.12 crashes
    /// if it is asked for a file by that.
    ByFirmware,
    /// No GRUB at all: iPXE asks, and reads scripts of its own.
    ByIpxe,
}

impl Fetch {
    const fn protocol(self) -> &'static str {
        match self {
            Self::Itself | Self::ByIpxe => "tftp",
            Self::ByFirmware => "http",
        }
    }
}

/// GRUB's variable by which a [boot medium](entry_cfg) says that it was started from there.
pub const MEDIUM_VARIABLE: &str = "bootlace_medium";

/// What [`ENTRY_PATH`] holds; `says_who`: its PC says who it is, as a [`LoaderClaim`]. Who was started from a medium tells that it runs
/// in any case: the server has seen no firmware of it. Needs the GRUB modules `echo`, `sleep`, `test`
/// and `configfile`; without `serial` and `terminal` there is no text on the serial port, where all messages go otherwise, too, if
/// there is one.
pub fn entry_cfg(server: Ipv4Addr, fetch: Fetch, says_who: bool) -> String {
    let asker = AsksBy { server, fetch, says_who };
    let tells = AsksBy { says_who: true, ..asker }.file(&LoaderAsk::Start);
    let start = match says_who {
        true => alloc::format!("source {tells}\n"),
        false => {
            alloc::format!("if [ \"${MEDIUM_VARIABLE}\" = 1 ]; then source {tells}; fi\n")
        }
    };
    alloc::format!(
        "# Served by Bootlace. Asks for this machine's configuration until it boots.\n\
         set pager=0\n\
         if serial --unit=0 --speed=115200; then terminal_output --append serial; fi\n\
         {start}{}",
        asker.asks_until_it_boots(&LoaderAsk::Machine)
    )
}

/// How a loader asks.
#[derive(Clone, Copy)]
struct AsksBy {
    server: Ipv4Addr,
    fetch: Fetch,
    /// It says who it is.
    says_who: bool,
}

impl AsksBy {
    fn of(network: &Network, fetch: Fetch) -> Self {
        Self { server: network.server, fetch, says_who: network.foreign_dhcp }
    }

    /// What it asks for, as GRUB's name of a file.
    fn file(self, ask: &LoaderAsk) -> String {
        alloc::format!("({},{}){}", self.fetch.protocol(), self.server, ask.path(self.says_who))
    }

    /// A loop rather than files that name each other, as above. GRUB 2.06's `source` calls it a success if there is no such file.
    fn asks_until_it_boots(self, ask: &LoaderAsk) -> String {
        alloc::format!(
            "while [ 1 = 1 ]; do\n\
             \x20 set {ANSWERED}=\n\
             \x20 source {}\n\
             \x20 if [ \"${ANSWERED}\" != 1 ]; then\n\
             \x20   echo 'Bootlace: the boot server {} does not answer. Asking again.'\n\
             \x20   sleep 5\n\
             \x20 fi\n\
             done\n",
            self.file(ask),
            self.server
        )
    }
}

/// What [`MACHINE_PATH`] holds for one machine. The server's address is written out everywhere:
/// GRUB's own idea of it is another DHCP server's in some networks.
pub fn grub_cfg(plan: &Plan, network: &Network, fetch: Fetch) -> String {
    alloc::format!("set {ANSWERED}=1\n{}", what_to_do(plan, network, fetch))
}

/// The same for a PC that waits, for this reason.
pub fn grub_waits(why: &str) -> String {
    alloc::format!("set {ANSWERED}=1\n{}", wait(why))
}

/// Shows why a PC waits, and lets it ask again.
fn wait(why: &str) -> String {
    let why = alloc::format!("Bootlace: {why}");
    let again = alloc::format!("Asking again every {ASK_AGAIN_SECONDS} seconds.");
    alloc::format!(
        "echo\necho {}\necho {}\nsleep {ASK_AGAIN_SECONDS}\n",
        quote(&why),
        quote(&again)
    )
}

fn what_to_do(plan: &Plan, network: &Network, fetch: Fetch) -> String {
    let server = network.server;
    match plan {
        Plan::Boot(plan) => {
            let mut arguments = String::new();
            for word in plan.command_line().split_ascii_whitespace() {
                let _ = write!(arguments, " {}", quote(word));
            }
            let (kernel, initrd) = (plan.kernel(), plan.initrd());
            let title = alloc::format!(
                "Bootlace: {} starts {} version {} (boot {})",
                plan.machine.name,
                plan.image.image,
                plan.image.version,
                plan.config.boot
            );
            let mut text = alloc::format!("echo {}\n", quote(&title));
            let rescue = |protocol: &str| match plan.has_rescue {
                true => alloc::format!(" ({protocol},{server}){RESCUE_ARCHIVE_PATH}"),
                false => String::new(),
            };
            let (by_http, by_tftp) = (rescue("http"), rescue("tftp"));
            if fetch == Fetch::ByFirmware {
                // It asks for the length first, which nobody gets told of a host segment: init fetches that itself.
                let _ = write!(
                    text,
                    "linux (http,{server}){kernel}{arguments}\n\
                     initrd (http,{server}){initrd}{by_http}\n"
                );
                text.push_str(&end());
                return text;
            }
            let _ = write!(
                text,
                "if ! linux (http,{server}){kernel}{arguments}; then\n\
                 \x20 echo 'Bootlace: HTTP failed, trying TFTP'\n\
                 \x20 linux (tftp,{server}){kernel}{arguments}\n\
                 fi\n"
            );
            // A machine starts without its host segment, too: its init asks for it again. By TFTP it is not to be had,
            // since anybody can ask for a file by TFTP in the machine's name.
            let host = plan.host_path();
            let _ = write!(
                text,
                "if ! initrd (http,{server}){initrd} (http,{server}){host}{by_http}; then\n\
                 \x20 echo 'Bootlace: HTTP failed, trying TFTP'\n\
                 \x20 initrd (tftp,{server}){initrd}{by_tftp}\n\
                 fi\n"
            );
            text.push_str(&end());
            text
        }
        Plan::Wait(why) => wait(&why.to_string()),
        Plan::ShowMenu => {
            alloc::format!("configfile {}\n", AsksBy::of(network, fetch).file(&LoaderAsk::Menu))
        }
        Plan::Menu(shown) => menu::menu_cfg(shown, network, AsksBy::of(network, fetch)),
        Plan::LocalDisk => local_disk::local_disk_cfg(),
        Plan::LeaveStranger(why) => local_disk::stranger_cfg(why),
        Plan::MemoryTest => {
            let protocol = fetch.protocol();
            let serial: String =
                network.serial_consoles().map(|word| alloc::format!(" {}", quote(word))).collect();
            let file =
                alloc::format!("({protocol},{server}){MEMORY_TEST_FOLDER}$grub_cpu-$grub_platform");
            alloc::format!("echo 'Bootlace: memory test'\nlinux {file}{serial}\n{}", end())
        }
    }
}

/// Starts what was loaded. The kernel of another distribution than the signed loader's is refused here, too.
fn end() -> String {
    alloc::format!(
        "boot\n\
         echo 'Bootlace: the kernel could not be started. Asking again.'\n\
         sleep {ASK_AGAIN_SECONDS}\n"
    )
}

/// Quotes a text as one word of GRUB's script language (GRUB manual, "Quoting").
fn quote(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:,=@%+".contains(&byte);
    if !text.is_empty() && text.bytes().all(is_plain) {
        return text.into();
    }
    let mut quoted = String::from("'");
    for character in text.chars() {
        match character {
            '\'' => quoted.push_str("'\\''"),
            other if other.is_control() => quoted.push(' '),
            other => quoted.push(other),
        }
    }
    quoted.push('\'');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::{ADDRESS, MAC, network, site};
    use crate::{LoaderClaim, Waiting, plan};
    use wire::Firmware;

    #[test]
    fn a_machine_that_boots_tries_http_then_tftp() {
        let plan = plan(&site(), &network(), (MAC, ADDRESS), 42, None).unwrap();
        let text = grub_cfg(&Plan::Boot(plan), &network(), Fetch::Itself);
        let expected = "\
set bootlace_answered=1
echo 'Bootlace: lab-07 starts debian-12 version 2 (boot 42)'
if ! linux (http,10.77.0.1)/boot/debian-12/2/vmlinuz console=ttyS0 quiet panic=30 \
systemd.machine_id=b0071ace5eed4d1cab1e525400000001 bootlace.server=10.77.0.1 bootlace.boot=42 bootlace.mac=52:54:00:00:00:01 \
bootlace.address=10.77.0.100/24 bootlace.host=lab-07 bootlace.root=nbd:10.77.0.1:10809:lab-07; then
";
        assert!(text.starts_with(expected), "{text}");
        assert!(
            text.contains(
                "if ! initrd (http,10.77.0.1)/boot/debian-12/2/initrd (http,10.77.0.1)/boot/host/42; then\n"
            ),
            "{text}"
        );
        assert!(
            text.contains("  initrd (tftp,10.77.0.1)/boot/debian-12/2/initrd\nfi\nboot\n"),
            "{text}"
        );
    }

    #[test]
    fn a_rescue_shell_follows_all_that_a_machine_gets() {
        let mut boot = plan(&site(), &network(), (MAC, ADDRESS), 42, None).unwrap();
        boot.has_rescue = true;
        let text = grub_cfg(&Plan::Boot(boot), &network(), Fetch::Itself);
        for end in [
            "(http,10.77.0.1)/boot/host/42 (http,10.77.0.1)/boot/rescue; then\n",
            "(tftp,10.77.0.1)/boot/debian-12/2/initrd (tftp,10.77.0.1)/boot/rescue\nfi\n",
        ] {
            assert!(text.contains(end), "{text}");
        }
    }

    #[test]
    fn a_grub_that_fetches_by_the_firmware_is_told_of_http_only() {
        let plan = plan(&site(), &network(), (MAC, ADDRESS), 42, None).unwrap();
        let text = grub_cfg(&Plan::Boot(plan), &network(), Fetch::ByFirmware);
        assert!(text.contains("\nlinux (http,10.77.0.1)/boot/debian-12/2/vmlinuz "), "{text}");
        assert!(
            text.contains("\ninitrd (http,10.77.0.1)/boot/debian-12/2/initrd\nboot\n"),
            "{text}"
        );
        assert!(!text.contains("tftp"), "{text}");
    }

    #[test]
    fn no_text_breaks_out_of_its_quotes() {
        let trouble = Waiting::NotReady("'; reboot; echo \n'".into());
        let text = grub_cfg(&Plan::Wait(trouble), &network(), Fetch::Itself);
        assert!(text.contains(r"'Bootlace: '\''; reboot; echo  '\'''"), "{text}");
        assert_eq!(text.lines().count(), 5, "{text}");
    }

    #[test]
    fn the_loop_names_the_server_itself() {
        let entry = |fetch| entry_cfg(network().server, fetch, false);
        assert!(entry(Fetch::Itself).contains("source (tftp,10.77.0.1)/grub/machine.cfg"));
        assert!(entry(Fetch::ByFirmware).contains("source (http,10.77.0.1)/grub/machine.cfg"));
    }

    #[test]
    fn a_missing_configuration_is_asked_for_again_after_a_pause() {
        let entry = entry_cfg(network().server, Fetch::Itself, false);
        let forgets = entry.find("  set bootlace_answered=\n").unwrap();
        let asks = forgets + entry[forgets..].find("  source ").unwrap();
        assert!(
            entry[asks..].contains("if [ \"$bootlace_answered\" != 1 ]; then\n    echo "),
            "{entry}"
        );
        assert!(entry[asks..].contains("    sleep 5\n"), "{entry}");
        for text in [
            grub_cfg(&Plan::LocalDisk, &network(), Fetch::Itself),
            grub_cfg(&Plan::Wait(Waiting::NotReady("why".into())), &network(), Fetch::Itself),
            grub_waits("why"),
        ] {
            assert!(text.starts_with("set bootlace_answered=1\n"), "{text}");
        }
    }

    #[test]
    fn a_pc_whose_address_is_another_server_s_says_who_it_is() {
        let text = entry_cfg(network().server, Fetch::Itself, true);
        let asks = text.lines().filter_map(|line| {
            let (_, path) = line.split_once("(tftp,10.77.0.1)")?;
            let path = path.replace("$grub_cpu-$grub_platform", "x86_64-efi");
            LoaderClaim::parse(&path.replace("$net_default_mac", &MAC.to_string()))
        });
        let claim = |ask| LoaderClaim { ask, firmware: Firmware::UefiX64, mac: MAC };
        assert!(asks.eq([claim(LoaderAsk::Start), claim(LoaderAsk::Machine)]), "{text}");
    }

    #[test]
    fn a_pc_that_was_started_from_a_medium_tells_that_it_runs() {
        let text = entry_cfg(network().server, Fetch::Itself, false);
        let tells = "if [ \"$bootlace_medium\" = 1 ]; then source (tftp,10.77.0.1)/grub/pc/start/";
        let (before, rest) = text.split_once(tells).unwrap();
        assert!(!before.contains("source") && rest.contains("/grub/machine.cfg\n"), "{text}");
    }

    #[test]
    fn a_memory_test_is_the_one_for_the_firmware() {
        let text = grub_cfg(&Plan::MemoryTest, &network(), Fetch::Itself);
        assert!(
            text.contains(
                "linux (tftp,10.77.0.1)/boot/memory-test/$grub_cpu-$grub_platform console=ttyS0\nboot\n"
            ),
            "{text}"
        );
    }
}
