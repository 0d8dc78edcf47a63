//! PID 1 of the initrd: attaches the root disk over the network and hands over to the image's init.
//!
//! One binary with several names, because each further binary would be another megabyte:
//! - PID 1 mounts the kernel's file systems and starts itself as `init boot`, so that whatever goes
//!   wrong there ends in words and a restart, not in "Attempted to kill init";
//! - `init boot` does the work, stage by stage, up to a complete root below `/sysroot`;
//! - `@bootlace-keeper` (`init keep`) stays, and carries the root disk through outages of its server;
//! - `@bootlace-disk-TAG` (`init keep-disk`) does so for a disk beside the root;
//! - `@bootlace-up` (`init await-login`) tells the boot server when people can log in, where no systemd does;
//! - `init rescue` asks for a password on every console, and opens a shell, if this boot has one;
//! - PID 1 then makes that the root and becomes the image's init;
//! - `shutdown` unmounts the root when the system is stopped, and ends the machine;
//! - `modprobe` answers the kernel, which asks for modules by that name;
//! - `bootlace-init report STAGE [DETAIL]` tells the boot server something later;
//! - `bootlace-init report-mode emergency|rescue` tells it that the system has stopped in that mode.
//!
//! Imports point to the right, and from everywhere to what comes last:
//! ```text
//! pid1, boot -> handover -> keeper -> root -> net -> modules
//! boot -> disks -> handover, keeper, root
//! pid1, boot, handover, keeper -> boot_server -> modules
//! pid1, boot -> rescue -> boot_server
//! boot -> capture -> handover, root, boot_server
//! shutdown
//! everything -> patience, failure -> console; sysfs, xattrs
//! ```
// But for the two modules that ARCHITECTURE.md names.
#![deny(unsafe_code)]

mod boot;
mod boot_server;
mod capture;
mod console;
mod disks;
mod failure;
mod handover;
mod keeper;
mod modules;
mod net;
mod patience;
mod pid1;
mod rescue;
mod root;
mod shutdown;
mod sysfs;
mod xattrs;

use boot_server::reporter;
use handover::emergency;
use initcfg::Stage;
use keeper::{await_login, further_disk};
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args();
    let program = arguments.next().unwrap_or_default();
    let rest: Vec<String> = arguments.collect();
    if program.ends_with("modprobe") {
        return modules::modprobe(&rest);
    }
    if program.ends_with("shutdown") {
        return shutdown::run(rest.first().map(String::as_str).unwrap_or_default());
    }
    if std::process::id() == 1 {
        pid1::run(&rest);
    }
    match rest.first().map(String::as_str) {
        Some("boot") => boot::run(),
        Some("keep") => keeper::run(&rest[1..]),
        Some("keep-disk") => further_disk::run(&rest[1..]),
        Some("await-login") => await_login::run(),
        Some("rescue") => rescue::run(&rest[1..]),
        Some("rescue-shell") => rescue::become_shell(),
        Some("report-mode") => match rest.get(1).and_then(|service| emergency::detail(service)) {
            Some(detail) => reporter::report_later(&[Stage::Failed.to_string(), detail]),
            None => ExitCode::from(2),
        },
        Some("report") => reporter::report_later(&rest[1..]),
        _ => {
            // Not print: this may be run by anything, with no standard error at all.
            let text =
                "it is started by the kernel; usage: bootlace-init report (STAGE [DETAIL] | off)\n";
            for line in [initcfg::INIT_LINE, text] {
                let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
            }
            ExitCode::from(2)
        }
    }
}
