//! `/shutdown`: the last program of a machine that systemd stops. systemd gives it the machine when
//! everything else is ended (systemd: INITRD_INTERFACE), so that it can unmount the root that systemd
//! itself stood on.

use crate::console::Console;
use crate::root::lvm;
use rustix::mount::{MountFlags, UnmountFlags, mount_remount, unmount};
use rustix::system::{RebootCommand, reboot};
use std::fs;
use std::process::ExitCode;
use std::time::Duration;

/// Where systemd leaves the former root.
const FORMER_ROOT: &str = "/oldroot";

/// A machine must end, though its storage server is away and can't take the last writes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Mounts may hold each other in ways that their paths do not show.
const ROUNDS_MAX: u32 = 3;

/// Unmounts what is left and does what `verb` says: `poweroff`, `reboot`, `halt`, `kexec`. Only returns
/// if it is not PID 1.
pub(crate) fn run(verb: &str) -> ExitCode {
    if std::process::id() != 1 {
        return ExitCode::from(2);
    }
    let command = command(verb);
    let console = Console::open();
    std::thread::spawn({
        let console = console.clone();
        move || {
            std::thread::sleep(PATIENCE);
            console.line("bootlace: the root disk does not answer; not waiting any longer");
            end(command);
        }
    });
    let left = unmount_all(&console);
    rustix::fs::sync();
    lvm::deactivate();
    let what = if left == 0 { "root unmounted" } else { "root is read-only" };
    console.line(&format!("bootlace: {what}; {verb}"));
    end(command)
}

fn command(verb: &str) -> RebootCommand {
    match verb {
        "poweroff" => RebootCommand::PowerOff,
        "halt" => RebootCommand::Halt,
        "kexec" => RebootCommand::Kexec,
        _ => RebootCommand::Restart,
    }
}

/// Does not return: PID 1 must never end.
fn end(command: RebootCommand) -> ! {
    let _ = reboot(command);
    loop {
        // A kernel without what was asked for, such as a loaded kexec image.
        std::thread::sleep(Duration::from_secs(1));
        let _ = reboot(RebootCommand::Restart);
    }
}

/// Unmounts everything below the former root; returns how much could only be made read-only.
fn unmount_all(console: &Console) -> usize {
    let mut left = Vec::new();
    for _ in 0..ROUNDS_MAX {
        left = below(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default(), FORMER_ROOT);
        left.retain(|mount| unmount(mount.path.as_str(), mount.flags()).is_err());
        if left.is_empty() {
            return 0;
        }
    }
    for Mount { path, .. } in &left {
        let result = mount_remount(path.as_str(), MountFlags::RDONLY, c"");
        console.log(&format!("bootlace: {path} is in use; made read-only: {result:?}"));
    }
    left.len()
}

#[derive(Debug, PartialEq, Eq)]
struct Mount {
    path: String,
    /// Whether the content is on a disk or a server, and not in memory.
    is_stored: bool,
}

impl Mount {
    /// The keeper has files of the former `/dev` open. Of what is only in memory nothing is lost.
    fn flags(&self) -> UnmountFlags {
        if self.is_stored { UnmountFlags::empty() } else { UnmountFlags::DETACH }
    }
}

/// Mounts at and below a folder, the last mounted first (proc(5), mountinfo: field 5 is the path; after
/// ` - ` come the type and the device).
fn below(mountinfo: &str, folder: &str) -> Vec<Mount> {
    let mount = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        let path = unescape(left.split(' ').nth(4)?);
        let (kind, device) = right.split(' ').next().zip(right.split(' ').nth(1))?;
        let rest = path.strip_prefix(folder)?;
        let is_below = rest.is_empty() || rest.starts_with('/');
        let is_stored = device.starts_with("/dev/") || matches!(kind, "nfs" | "nfs4");
        is_below.then_some(Mount { path, is_stored })
    };
    let mut mounts: Vec<Mount> = mountinfo.lines().filter_map(mount).collect();
    mounts.reverse();
    mounts
}

/// Blanks and backslashes are written as `\040`.
fn unescape(path: &str) -> String {
    let mut parts = path.split('\\');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => {
                text.push(char::from(code));
                text.push_str(&part[3..]);
            }
            None => {
                text.push('\\');
                text.push_str(part);
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_mounted_last_is_unmounted_first() {
        let mountinfo = "22 1 0:20 / /proc rw - proc proc rw\n\
                         30 1 43:0 / /oldroot rw - ext4 /dev/nbd0 rw\n\
                         31 30 0:30 / /oldroot/tmp rw - tmpfs tmpfs rw\n\
                         32 30 8:1 / /oldroot/mnt/a\\040disk rw - ext4 /dev/sda1 rw\n\
                         33 1 0:32 / /oldrootless rw - tmpfs tmpfs rw\n\
                         bad line\n";
        let mounts = below(mountinfo, "/oldroot");
        let mounts: Vec<_> =
            mounts.iter().map(|mount| (mount.path.as_str(), mount.is_stored)).collect();
        let expected = [("/oldroot/mnt/a disk", true), ("/oldroot/tmp", false), ("/oldroot", true)];
        assert_eq!(mounts, expected);
        assert_eq!(unescape("a\\0"), "a\\0");
        assert_eq!(unescape("a\\134b"), "a\\b");
    }
}
