//! Whether the firmware of this PC starts only what is signed.

use initcfg::SecureBoot;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::fs;
use std::path::Path;

/// Where the firmware's variables are shown.
const VARIABLES: &str = "/sys/firmware/efi/efivars";

/// The vendor of variables that the UEFI specification itself defines.
const GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";

/// What the kernel's EFI stub has told the kernel (Linux, `struct boot_params`), and where the state is in it.
const BOOT_PARAMETERS: &str = "/sys/kernel/boot_params/data";
const BOOT_PARAMETERS_SECURE_BOOT: usize = 0x1ec;
/// Values there: `enum efi_secureboot_mode`.
const STUB_SAYS_OFF: u8 = 2;
const STUB_SAYS_ON: u8 = 3;

/// Asks the firmware, or the kernel if that can't; `None`: this PC has no UEFI, or neither says anything.
pub(crate) fn state() -> Option<SecureBoot> {
    if !Path::new(VARIABLES).is_dir() {
        return None;
    }
    // The kernel asks us for the module by itself. What the real system mounts there is another one.
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let is_mounted = mount("efivarfs", VARIABLES, "efivarfs", flags, c"").is_ok();
    let state = of_variables(Path::new(VARIABLES));
    if is_mounted {
        let _ = unmount(VARIABLES, UnmountFlags::DETACH);
    }
    state.or_else(|| of_boot_parameters(&fs::read(BOOT_PARAMETERS).ok()?))
}

fn of_variables(folder: &Path) -> Option<SecureBoot> {
    // Four bytes of attributes, then the value.
    let read = |name: &str| fs::read(folder.join(format!("{name}-{GLOBAL}"))).ok()?.get(4).copied();
    let is_on = read("SecureBoot")? == 1;
    Some(SecureBoot::of_variables(is_on, read("SetupMode") == Some(1)))
}

fn of_boot_parameters(bytes: &[u8]) -> Option<SecureBoot> {
    match *bytes.get(BOOT_PARAMETERS_SECURE_BOOT)? {
        STUB_SAYS_ON => Some(SecureBoot::On),
        STUB_SAYS_OFF => Some(SecureBoot::Off),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_firmware_s_variables_are_read_and_else_what_the_kernel_was_told() {
        let folder = std::env::temp_dir().join(format!("bootlace-efi-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let write = |name: &str, bytes: &[u8]| {
            fs::write(folder.join(format!("{name}-{GLOBAL}")), bytes).unwrap();
        };
        assert_eq!(of_variables(&folder), None);
        write("SecureBoot", &[6, 0, 0, 0]);
        assert_eq!(of_variables(&folder), None, "it has no value");
        write("SecureBoot", &[6, 0, 0, 0, 0]);
        assert_eq!(of_variables(&folder), Some(SecureBoot::Off));
        write("SetupMode", &[6, 0, 0, 0, 1]);
        assert_eq!(of_variables(&folder), Some(SecureBoot::Setup));
        write("SecureBoot", &[6, 0, 0, 0, 1]);
        write("SetupMode", &[6, 0, 0, 0, 0]);
        assert_eq!(of_variables(&folder), Some(SecureBoot::On));
        fs::remove_dir_all(&folder).unwrap();

        let mut parameters = vec![0; 4096];
        for (said, state) in
            [(0, None), (1, None), (2, Some(SecureBoot::Off)), (3, Some(SecureBoot::On))]
        {
            parameters[BOOT_PARAMETERS_SECURE_BOOT] = said;
            assert_eq!(of_boot_parameters(&parameters), state);
        }
        assert_eq!(of_boot_parameters(&[0; 100]), None);
    }
}
