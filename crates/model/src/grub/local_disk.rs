//! From the loader on to a system on a disk of the PC.

use super::{ASK_AGAIN_SECONDS, quote};
use crate::Waiting;
use alloc::string::String;
use core::fmt::Write as _;

/// A PC that is no machine goes on after so many seconds.
const STRANGER_SECONDS: u64 = 10;

/// Loaders in EFI system partitions, where `$arch` is `x64` or `aa64`; those first that know what else is on the disks: a distribution's finds Windows, and not
/// the other way round. The last is where a disk has its loader that is in no list of the firmware.
const LOADERS: &[&str] = &[
    "debian/shim$arch.efi",
    "ubuntu/shim$arch.efi",
    "linuxmint/shim$arch.efi",
    "fedora/shim$arch.efi",
    "opensuse/shim.efi",
    "centos/shim$arch.efi",
    "rocky/shim$arch.efi",
    "almalinux/shim$arch.efi",
    "redhat/shim$arch.efi",
    "debian/grub$arch.efi",
    "ubuntu/grub$arch.efi",
    "arch/grub$arch.efi",
    "GRUB/grub$arch.efi",
    "systemd/systemd-boot$arch.efi",
    "Microsoft/Boot/bootmgfw.efi",
    "BOOT/BOOT$arch.EFI",
];

/// Starts the system on a disk of the PC. If there is none it says so and ends.
///
/// The loader is not simply left: UEFI firmware (UEFI 2.10, 3.1.2) shows its own menu then, and tries no other boot option.
/// Needs the modules `chain`, `part_gpt`, `part_msdos`, `fat`, `test`, and `regexp` for the asterisk; for a BIOS `biosdisk`.
pub(super) fn local_disk_cfg() -> String {
    let mut text = String::from(
        "echo 'Bootlace: starting from the disk of this PC'\n\
         if [ \"$grub_platform\" = efi ]; then\n\
         \x20 set arch=x64\n\
         \x20 if [ \"$grub_cpu\" = arm64 ]; then set arch=aa64; fi\n\
         \x20 for file in",
    );
    for loader in LOADERS {
        let _ = write!(text, " /EFI/{loader}");
    }
    let _ = write!(
        text,
        "; do\n\
         \x20   for part in (hd*); do\n\
         \x20     if [ -f $part$file ]; then\n\
         \x20       echo \"Bootlace: $part$file\"\n\
         \x20       if chainloader $part$file; then boot; fi\n\
         \x20     fi\n\
         \x20   done\n\
         \x20 done\n\
         else\n\
         \x20 for disk in hd0 hd1 hd2 hd3; do\n\
         \x20   set root=$disk\n\
         \x20   if chainloader ($disk)+1; then boot; fi\n\
         \x20 done\n\
         fi\n\
         echo 'Bootlace: no disk of this PC has a system that starts. Asking again.'\n\
         sleep {ASK_AGAIN_SECONDS}\n"
    );
    text
}

/// Starts the system on a disk of a PC that is no machine, unless somebody at the PC wants it to wait.
pub(super) fn stranger_cfg(why: &Waiting) -> String {
    let why = quote(&alloc::format!("Bootlace: {why}"));
    let wait = alloc::format!(
        "echo {why}\necho 'Asking again every {ASK_AGAIN_SECONDS} seconds.'\nsleep {ASK_AGAIN_SECONDS}\n"
    );
    alloc::format!(
        "echo\n\
         if [ \"$bootlace_stays\" = 1 ]; then\n\
         {wait}else\n\
         echo {why}\n\
         echo 'It starts from its own disk in {STRANGER_SECONDS} seconds. To let it wait here instead, press Esc.'\n\
         if sleep --interruptible {STRANGER_SECONDS}; then\n\
         {}else\n\
         set bootlace_stays=1\n\
         fi\n\
         fi\n",
        local_disk_cfg()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::MAC;

    #[test]
    fn a_stranger_is_told_who_he_is_and_how_to_stay() {
        let text = stranger_cfg(&Waiting::UnknownMachine(MAC));
        for part in ["52:54:00:00:00:01 is not in the machine list", "press Esc", "chainloader"] {
            assert!(text.contains(part), "{text}");
        }
        let (mut ifs, mut fis) = (0, 0);
        for line in text.lines().map(str::trim) {
            ifs += usize::from(line.starts_with("if "));
            fis += usize::from(line == "fi" || line.ends_with(" fi"));
        }
        assert_eq!(ifs, fis, "{text}");
    }
}
