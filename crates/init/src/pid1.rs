//! PID 1: little code that can't go wrong around the work that can.

use crate::boot;
use crate::boot_server::host_segment;
use crate::console::Console;
use crate::failure::Failure;
use crate::handover::find_init;
use crate::rescue::{self, Offer};
use crate::root::ROOT;
use initcfg::BootConfig;
use rustix::mount::{MountFlags, mount, mount_move};
use rustix::system::RebootCommand;
use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::Duration;

/// How long the kernel may take to restart the machine until it is asked again.
const RESTART_AGAIN: Duration = Duration::from_secs(60);

/// Sets everything up, runs the boot, and becomes the real init. Does not return.
pub(crate) fn run(arguments: &[String]) -> ! {
    let mounted = mount_kernel_file_systems();
    let console = Console::open();
    if let Err(error) = mounted {
        let what = format!("can't mount the kernel's file systems: {error}");
        fail(
            &console,
            host_segment::reboot_after(),
            Some(&Failure::new(what, "this kernel can't be used: try another version")),
        );
    }
    let status = Command::new("/init").arg("boot").status();
    // Now: it may have been fetched, and is gone when the root has changed.
    let reboot_after = host_segment::reboot_after();
    match status {
        Ok(status) if status.success() => {
            let error = switch_root(arguments);
            fail(&console, reboot_after, Some(&error));
        }
        Ok(status) if status.code() == Some(boot::RESTART.into()) => {
            console.line("bootlace: this machine restarts, as what it was");
            restart();
        }
        Ok(status) if status.code() == Some(boot::POWER_OFF.into()) => {
            console.line("bootlace: this machine switches itself off");
            let _ = rustix::system::reboot(RebootCommand::PowerOff);
            // Not every machine can.
            restart();
        }
        // It has said why.
        Ok(status) if status.code() == Some(1) => fail(&console, reboot_after, None),
        Ok(status) => fail(&console, reboot_after, Some(&crashed(status))),
        Err(error) => {
            let what = format!("can't start the second process: {error}");
            fail(
                &console,
                reboot_after,
                Some(&Failure::new(what, "perhaps this machine has too little memory")),
            );
        }
    }
}

fn crashed(status: ExitStatus) -> Failure {
    Failure::new(
        format!("the boot program has crashed ({status})"),
        "this is a bug in Bootlace: please report it, with a photo of this screen",
    )
}

/// Says what has not been said yet, waits, and restarts the machine. PID 1 must never end.
fn fail(console: &Console, reboot_after: Option<Duration>, failure: Option<&Failure>) -> ! {
    // Somebody may have used the rescue shell.
    console.reopen();
    let mut reporting = None;
    if let Some(failure) = failure {
        let command_line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
        failure.show(console, BootConfig::parse(&command_line).ok().as_ref());
        let detail = failure.to_string();
        // `/init` is gone when the root has changed; this program's own file is not, while it runs.
        reporting = Command::new("/proc/self/exe").args(["report", "failed", &detail]).spawn().ok();
    }
    if rescue::offer() == Offer::Yes {
        if let Some(limit) = reboot_after {
            let seconds = limit.as_secs();
            console.line(&format!(
                "bootlace: this machine restarts in {seconds} s unless somebody opens the rescue shell"
            ));
        }
        let left = rescue::start(reboot_after).and_then(|mut child| child.wait());
        console.reopen();
        if left.is_ok_and(|status| status.success()) {
            restart();
        }
    }
    let Some(reboot_after) = reboot_after else {
        console.line("bootlace: this machine stays as it is until it is switched off and on");
        loop {
            std::thread::sleep(RESTART_AGAIN);
        }
    };
    let seconds = reboot_after.as_secs();
    console.line(&format!("bootlace: this machine restarts in {seconds} s"));
    std::thread::sleep(reboot_after);
    if let Some(mut child) = reporting {
        let _ = child.kill();
    }
    restart();
}

fn restart() -> ! {
    loop {
        let _ = rustix::system::reboot(RebootCommand::Restart);
        std::thread::sleep(RESTART_AGAIN);
    }
}

fn mount_kernel_file_systems() -> io::Result<()> {
    let hardened = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    // /run is not noexec: programs run from it when the initrd is gone.
    let run = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::STRICTATIME;
    let list: [(&str, &str, MountFlags, &CStr); 4] = [
        ("/proc", "proc", hardened, c""),
        ("/sys", "sysfs", hardened, c""),
        ("/dev", "devtmpfs", MountFlags::NOSUID, c"mode=755"),
        ("/run", "tmpfs", run, c"mode=755"),
    ];
    for (target, kind, flags, options) in list {
        mount(kind, target, kind, flags, options)
            .map_err(|error| io::Error::other(format!("{target}: {error}")))?;
    }
    Ok(())
}

/// Makes `/sysroot` the root and becomes its init. Only returns if that fails.
fn switch_root(arguments: &[String]) -> Failure {
    let command_line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let init = match find_init(Path::new(ROOT), &command_line) {
        Ok(init) => init,
        Err(failure) => return failure,
    };
    if let Err(error) = move_root() {
        return Failure::new(
            format!("can't switch to the root file system: {error}"),
            "perhaps the image lacks one of the folders dev, proc, sys and run",
        );
    }
    let error = Command::new(&init)
        .args(arguments)
        .env_clear()
        .env("HOME", "/")
        .env("TERM", "linux")
        .exec();
    let helps = match error.kind() {
        io::ErrorKind::NotFound => {
            "it, or the interpreter that it names in its beginning, is missing: the image is damaged"
        }
        io::ErrorKind::PermissionDenied => {
            "it, or its interpreter, is not executable: repair the image"
        }
        _ => "the image is damaged, or for another kind of processor",
    };
    Failure::new(format!("can't start {init} of the image: {error}"), helps)
}

fn move_root() -> io::Result<()> {
    for folder in ["dev", "proc", "sys", "run"] {
        mount_move(format!("/{folder}"), format!("{ROOT}/{folder}"))
            .map_err(|error| io::Error::other(format!("/{folder}: {error}")))?;
    }
    // The initrd lives in memory: what stays is lost to the real system.
    let own_device = fs::metadata("/")?.dev();
    remove_content(Path::new("/"), own_device);
    std::env::set_current_dir(ROOT)?;
    mount_move(".", "/")?;
    rustix::process::chroot(".")?;
    std::env::set_current_dir("/")
}

/// Deletes all below a folder that is on this device; mounts stay.
fn remove_content(folder: &Path, device: u64) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let Ok(status) = fs::symlink_metadata(&path) else { continue };
        if status.dev() != device {
            continue;
        }
        if status.is_dir() {
            remove_content(&path, device);
            let _ = fs::remove_dir(&path);
        } else {
            let _ = fs::remove_file(&path);
        }
    }
}
