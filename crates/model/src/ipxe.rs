//! Scripts for iPXE, as the second family of loaders: what [`grub`](crate::grub_cfg) is for GRUB.
//!
//! iPXE reads [`IPXE_ENTRY_PATH`], the same for everybody, which asks again and again for what the variable `bootlace` names, until
//! that boots. Scripts are read without quotes: a space always ends a word, and `${` is always a variable (iPXE, `core/exec.c`).

use crate::loader_ask::{IPXE_FOLDER, LoaderAsk, MEMORY_TEST_FOLDER};
use crate::{ASK_AGAIN, BootPlan, Network, Plan, ShownMenu, Waiting};
use alloc::format;
use alloc::string::{String, ToString as _};
use core::fmt::Write as _;
use core::net::Ipv4Addr;
use initcfg::RESCUE_ARCHIVE_PATH;

/// The first script: iPXE looks for this name beside itself, and is told it by DHCP.
pub const IPXE_ENTRY_PATH: &str = "/autoexec.ipxe";

/// Each script begins so.
const MAGIC: &str = "#!ipxe\n";

const ASK_AGAIN_SECONDS: u64 = ASK_AGAIN.as_secs();

/// In `bootlace`: iPXE ends, and the firmware goes on to what it has to start next.
const LEAVE: &str = "leave";

/// A PC that is no machine goes on after so many seconds.
const STRANGER_SECONDS: u64 = 10;

/// What [`IPXE_ENTRY_PATH`] holds; `says_who`: its PC says who it is, as a [`LoaderClaim`](crate::LoaderClaim).
pub fn entry_ipxe(server: Ipv4Addr, says_who: bool) -> String {
    let (first, path) = match says_who {
        true => (LoaderAsk::Start, "pc/${bootlace}/${buildarch}-${platform}/${netX/mac}"),
        false => (LoaderAsk::Machine, "${bootlace}.ipxe"),
    };
    let machine = LoaderAsk::Machine.word();
    format!(
        "{MAGIC}# Served by Bootlace. Asks for this machine's script until it boots.\n\
         set bootlace {}\n\
         :again\n\
         chain --autofree tftp://{server}{IPXE_FOLDER}{path} || goto silent\n\
         iseq ${{bootlace}} {LEAVE} && exit 1 ||\n\
         iseq ${{bootlace}} {} && set bootlace {machine} ||\n\
         goto again\n\
         :silent\n\
         echo Bootlace: the boot server {server} does not answer. Asking again.\n\
         sleep 5 ||\n\
         goto again\n",
        first.word(),
        LoaderAsk::Start.word(),
    )
}

/// What the script for one machine is.
pub(crate) fn ipxe_script(plan: &Plan, network: &Network) -> String {
    let text = match plan {
        Plan::Boot(plan) => boot(plan, network.server),
        Plan::Wait(why) => wait(why),
        Plan::ShowMenu => ask(&LoaderAsk::Menu),
        Plan::Menu(shown) => menu(shown),
        Plan::LocalDisk => local_disk(),
        Plan::LeaveStranger(why) => stranger(why),
        Plan::MemoryTest => memory_test(network),
    };
    format!("{MAGIC}{text}")
}

/// A script that only says why it waits.
pub fn ipxe_waits(why: &str) -> String {
    format!("{MAGIC}{}", say_and_wait(why))
}

/// Has the first script ask for that.
fn ask(what: &LoaderAsk) -> String {
    format!("set bootlace {}\n", what.word())
}

fn boot(plan: &BootPlan, server: Ipv4Addr) -> String {
    let line = plan.command_line();
    let mut words = line.split_ascii_whitespace();
    if let Some(word) = words.clone().find(|word| !is_plain(word)) {
        return say_and_wait(&format!(
            "iPXE can't pass on the kernel argument {word}: leave it out, or let this PC load GRUB (loader_of)"
        ));
    }
    // The kernel's EFI stub finds initrds by their names on its command line, and joins them.
    let mut initrds =
        alloc::vec![(plan.initrd().to_string(), "initrd"), (plan.host_path(), "host")];
    if plan.has_rescue {
        initrds.push((RESCUE_ARCHIVE_PATH.to_string(), "rescue"));
    }
    let mut efi = String::new();
    let mut text = String::new();
    for (path, name) in &initrds {
        let _ = write!(efi, " initrd={name}");
        // A machine starts without its host segment, too: its init asks for it again.
        let or = if *name == "host" { "||" } else { "|| goto failed" };
        let _ = writeln!(text, "initrd --name {name} http://{server}{path} {or}");
    }
    let arguments = words.by_ref().fold(String::new(), |all, word| all + " " + word);
    format!(
        "echo Bootlace: {} starts {} version {} (boot {})\n\
         set initrds\n\
         iseq ${{platform}} efi && set initrds{efi} ||\n\
         imgfree ||\n\
         kernel http://{server}{} ${{initrds}}{arguments} || goto failed\n\
         {text}\
         boot ||\n\
         :failed\n\
         imgfree ||\n\
         echo Bootlace: the kernel could not be started. Asking again.\n\
         sleep {ASK_AGAIN_SECONDS} ||\n",
        plan.machine.name,
        plan.image.image,
        plan.image.version,
        plan.config.boot,
        plan.kernel(),
    )
}

/// Whether a word is one in a script, too.
fn is_plain(word: &str) -> bool {
    !word.contains("${") && !["||", "&&", ";"].contains(&word) && !word.starts_with('#')
}

fn wait(why: &Waiting) -> String {
    say_and_wait(&why.to_string())
}

fn say_and_wait(why: &str) -> String {
    format!(
        "echo\n\
         echo Bootlace: {}\n\
         echo Asking again every {ASK_AGAIN_SECONDS} seconds.\n\
         sleep {ASK_AGAIN_SECONDS} ||\n",
        text(why)
    )
}

/// A text as words that are nothing else.
fn text(words: &str) -> String {
    let plain = |word: &str| match is_plain(word) {
        true => word.to_string(),
        false => word.replace(['$', '|', '&', ';', '#'], "_"),
    };
    let mut all = String::new();
    for word in words.split_whitespace() {
        if !all.is_empty() {
            all.push(' ');
        }
        all.push_str(&plain(word));
    }
    all
}

/// iPXE knows no passwords that are kept as hashes: locked lines are left out.
fn menu(shown: &ShownMenu) -> String {
    let items = || shown.menu.items().iter().filter(|item| !item.is_locked);
    let mut lines = String::from("menu Bootlace\n");
    for item in items() {
        let title = shown.title(&item.choice);
        let word = LoaderAsk::Chosen(item.choice.clone()).word();
        let _ = writeln!(lines, "item {word} {}", text(&title));
    }
    let Some(first) = items().next() else {
        return say_and_wait(
            "each line of this PC's menu is locked, and iPXE asks for no password",
        );
    };
    let first = LoaderAsk::Chosen(first.choice.clone()).word();
    let ms = u64::from(shown.menu.seconds()) * 1000;
    let _ =
        writeln!(lines, "choose --timeout {ms} --default {first} bootlace || set bootlace {first}");
    lines
}

/// UEFI goes on in its own order; a BIOS starts the first disk that starts.
fn local_disk() -> String {
    format!(
        "echo Bootlace: starting from the disk of this PC\n\
         iseq ${{platform}} efi && set bootlace {LEAVE} ||\n\
         iseq ${{platform}} efi && exit 0 ||\n\
         sanboot --no-describe --drive 0x80 ||\n\
         sanboot --no-describe --drive 0x81 ||\n\
         echo Bootlace: no disk of this PC has a system that starts. Asking again.\n\
         sleep {ASK_AGAIN_SECONDS} ||\n"
    )
}

fn stranger(why: &Waiting) -> String {
    let wait = wait(why);
    format!(
        "iseq ${{bootlace-stays}} 1 && goto stay ||\n\
         echo\n\
         echo Bootlace: {}\n\
         prompt --key 0x1b --timeout {}000 It starts from its own disk in {STRANGER_SECONDS} seconds. To let it wait here \
         instead, press Esc. && goto stays ||\n\
         {}\
         exit 0\n\
         :stays\n\
         set bootlace-stays 1\n\
         :stay\n\
         {wait}",
        text(&why.to_string()),
        STRANGER_SECONDS,
        local_disk()
    )
}

fn memory_test(network: &Network) -> String {
    let server = network.server;
    let serial: String = network.serial_consoles().map(|word| format!(" {word}")).collect();
    format!(
        "echo Bootlace: memory test\n\
         set kind i386-pc\n\
         iseq ${{platform}} efi && set kind x86_64-efi ||\n\
         imgfree ||\n\
         chain http://{server}{MEMORY_TEST_FOLDER}${{kind}}{serial} ||\n\
         echo Bootlace: the memory test could not be started. Asking again.\n\
         sleep {ASK_AGAIN_SECONDS} ||\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan;
    use crate::plan::tests::{ADDRESS, MAC, network, site};
    use alloc::boxed::Box;

    fn boot_plan() -> Box<BootPlan> {
        plan(&site(), &network(), (MAC, ADDRESS), 42, None).unwrap()
    }

    #[test]
    fn a_machine_s_script_names_each_file_and_goes_on_without_its_host_segment() {
        let script = ipxe_script(&Plan::Boot(boot_plan()), &network());
        assert!(script.starts_with("#!ipxe\n"), "{script}");
        for part in [
            "\nkernel http://10.77.0.1/boot/debian-12/2/vmlinuz ${initrds} ",
            "\ninitrd --name initrd http://10.77.0.1/boot/debian-12/2/initrd || goto failed\n",
            " ||\nboot ||\n:failed\n",
            "set initrds initrd=initrd initrd=host ||",
        ] {
            assert!(script.contains(part), "{part}\n{script}");
        }
    }

    #[test]
    fn whatever_fails_is_said_and_asked_again() {
        let entry = entry_ipxe(Ipv4Addr::new(10, 77, 0, 1), false);
        assert!(
            entry
                .contains("chain --autofree tftp://10.77.0.1/ipxe/${bootlace}.ipxe || goto silent")
        );
        assert!(entry.ends_with("goto again\n") && entry.contains("set bootlace machine\n"));
        let says = entry_ipxe(Ipv4Addr::new(10, 77, 0, 1), true);
        assert!(
            says.contains("/ipxe/pc/${bootlace}/${buildarch}-${platform}/${netX/mac} ||"),
            "{says}"
        );
        assert!(says.contains("set bootlace start\n"));
        // Who presses Ctrl-C ends no script by that.
        for script in [entry, ipxe_waits("x"), ipxe_script(&Plan::LocalDisk, &network())] {
            let sleeps = script.lines().filter(|line| line.starts_with("sleep"));
            assert!(sleeps.clone().count() > 0 && sleeps.clone().all(|line| line.ends_with("||")));
        }
    }

    #[test]
    fn words_are_nothing_but_words() {
        assert_eq!(
            text("a  ${b} || c; # d\n&& e"),
            "a __{b}".replace("__", "_") + " __ c; _ d __ e"
        );
        let why = Waiting::UnknownMachine(MAC);
        let script = ipxe_script(&Plan::Wait(why), &network());
        assert!(script.contains("is not in the machine list"), "{script}");
        let mut plan = boot_plan();
        plan.kernel_args.push("x=${y}".into());
        let script = ipxe_script(&Plan::Boot(plan), &network());
        assert!(script.contains("can't pass on the kernel argument x=_{y}"), "{script}");
    }

    #[test]
    fn a_menu_has_the_lines_that_need_no_password() {
        let menu = "image,local-disk,memory-test/locked,image:xfce,20s".parse().unwrap();
        let shown = ShownMenu { menu, image: "debian-12".into() };
        let script = ipxe_script(&Plan::Menu(shown), &network());
        for part in [
            "item chosen-image debian-12\n",
            "item chosen-local-disk The disk of this PC\n",
            "item chosen-image:xfce xfce\n",
            "choose --timeout 20000 --default chosen-image bootlace || set bootlace chosen-image\n",
        ] {
            assert!(script.contains(part), "{part}\n{script}");
        }
        assert!(!script.contains("Memory test"), "{script}");
    }
}
