//! Whose fault a boot's failure is, by the words in which init tells it.

/// What init says when the image is at fault, and nothing else can be: what it lacks, or what is broken in it. Init's sources have
/// these words, which a test of this file compares.
const OF_THE_IMAGE: [&str; 18] = [
    // Kernel and modules do not fit each other, or a driver is missing.
    "the initrd is for kernel ",
    "the initrd has no usable list of modules",
    "use it with that kernel",
    "this kernel can't be used",
    "this is a fault of the kernel or of this initrd",
    "use an image whose kernel has a driver for this card",
    // The root is not what the version says.
    "has no partition ",
    "has no logical volume ",
    "can't use the logical volume ",
    "no ext4, xfs, btrfs, squashfs or erofs file system on ",
    " file system of {device}: ",
    " of the storage server {server} is empty",
    // There is no system on it.
    "of the root disk can't be started: ",
    "it is not a complete system",
    "can't switch to the root file system: ",
    "can't start {init} of the image: ",
    "perhaps the image lacks one of the folders",
    "its system is in emergency mode",
];

/// Whether a boot that failed with these words did so by the fault of its image: another machine would fail with it as well. Not what
/// a cable, a network or a server does, and not what nobody knows.
pub fn is_images_fault(detail: &str) -> bool {
    let says = |words: &str| {
        // What init fills in may be anything.
        let mut rest = detail;
        words.split(['{', '}']).step_by(2).all(|part| match rest.find(part) {
            Some(at) => {
                rest = &rest[at + part.len()..];
                true
            }
            None => false,
        })
    };
    let is_read_error = detail.contains("Input/output error");
    OF_THE_IMAGE.into_iter().any(says) && !is_read_error && !waits_for_a_server(detail)
}

/// A system is in emergency mode because file systems of a server are not there, and nothing else of its fstab is missing.
fn waits_for_a_server(detail: &str) -> bool {
    let Some((_, wanted)) = detail.split_once("its /etc/fstab wants ") else { return false };
    let wanted = wanted.split_once(", and nothing is mounted there").map_or(wanted, |it| it.0);
    let is_far = |entry: &str| {
        let what = entry.split(' ').next().unwrap_or_default();
        what.starts_with("//") || what.contains(":/")
    };
    wanted.split(", ").all(is_far)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lacks_or_is_broken_in_the_image_is_its_fault() {
        for detail in [
            "the initrd is for kernel 6.1.0-9, but 6.1.0-10 runs; have the boot server rebuild the initrd",
            "can't load the nbd driver: invalid module format; the initrd is for kernel 6.1.0: use it with that kernel",
            "the root disk /dev/nbd0 has no partition 2; it has 1; set the right partition of the image",
            "can't mount the ext4 file system of /dev/nbd0p1: Structure needs cleaning; reset the machine's disk",
            "/sbin/init of the root disk can't be started: Exec format error; repair the image, and import it again",
            "the root disk has no /sbin/init: it is not a complete system; assign an image",
            "can't start /sbin/init of the image: No such file; repair it",
            "its system is in emergency mode; its screen says more",
            "its system is in emergency mode, its /etc/fstab wants UUID=2 at /srv, and nothing is mounted there",
            "its system is in emergency mode, its /etc/fstab wants nas:/home at /home, UUID=2 at /srv, and nothing is mounted there",
        ] {
            assert!(is_images_fault(detail), "{detail}");
        }
    }

    #[test]
    fn a_cable_a_server_or_what_nobody_knows_is_not() {
        for detail in [
            "",
            "it did not say why",
            "no answer from 10.0.0.1:10809; start the storage server",
            "can't read the root disk /dev/nbd0: Input/output error; look at the storage server's log: a disk of the server may be failing",
            "can't mount the ext4 file system of /dev/nbd0: Input/output error; reset the machine's disk",
            "the boot server did not give this machine its disk; look at the machine's page",
            "the boot program has crashed (signal: 11); this is a bug in Bootlace",
            "Linux does not see the network card 02:00:00:00:00:01; it has found no network card at all; check that the card is seated",
            "its system is in rescue mode; its screen says more",
            "its system is in emergency mode, its /etc/fstab wants nas:/home at /home, //nas/pool at /pool, and nothing is mounted there; failed: home.mount",
            "can't mount nas:/root; look at the log of the NFS server",
        ] {
            assert!(!is_images_fault(detail), "{detail}");
        }
    }

    #[test]
    fn init_still_says_it_so() {
        extern crate std;
        fn sources(folder: &std::path::Path, text: &mut std::string::String) {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => sources(&path, text),
                    false => text.push_str(&std::fs::read_to_string(path).unwrap()),
                }
            }
        }
        let mut text = std::string::String::new();
        sources(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../init/src"), &mut text);
        // How it calls the modes stands apart.
        let text = text.replace("its system is in {mode}", "its system is in emergency mode");
        assert!(text.contains("\"emergency mode\""));
        for words in OF_THE_IMAGE {
            assert!(text.contains(words), "init does not say {words:?}");
        }
    }
}
