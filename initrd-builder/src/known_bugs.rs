//! Kernels whose bugs an administrator should know before his machines find them.

/// Bytes from the start of a kernel file that hold its version line: the pointer has 16 bits.
pub(crate) const KERNEL_START_SIZE: u64 = 0x200 + 0xffff + LINE_SIZE_MAX as u64;

/// Longest version line that is looked at.
const LINE_SIZE_MAX: usize = 256;

/// A bug of the stable kernels, by series.
struct Bug {
    /// The bug matters if this module is in the initrd.
    module: &'static str,
    /// First two numbers of the version.
    series: (u32, u32),
    /// Third number of the first version without it.
    fixed: u32,
    /// What happens.
    effect: &'static str,
    /// What helps besides an update.
    or: &'static str,
}

const AOE_CRASH: &str = "can crash when the AoE server is away for long (kernel bug 212665)";
const OR_NBD: &str = ", or let its machines attach their disks over NBD";
const NBD_SECURITY: &str = "can lose an NBD connection when SELinux or AppArmor confines the program \
                            that reads or writes (the kernel log says: Send control failed)";

/// The last one is in all of 6.1, where no update helps: nothing is said about it there.
const BUGS: [Bug; 3] = [
    Bug { module: "aoe", series: (6, 1), fixed: 147, effect: AOE_CRASH, or: OR_NBD },
    Bug { module: "aoe", series: (6, 12), fixed: 37, effect: AOE_CRASH, or: OR_NBD },
    Bug { module: "nbd", series: (6, 12), fixed: 117, effect: NBD_SECURITY, or: "" },
];

/// Sentences about the bugs that a kernel has in one of these modules. None if its version is unknown.
///
/// `start` is the start of the kernel's file.
pub(crate) fn known_bugs(
    release: &str,
    start: Option<&[u8]>,
    has_module: impl Fn(&str) -> bool,
) -> Vec<String> {
    let line = start.and_then(version_line);
    let Some((major, minor, patch)) = upstream_version(release, line) else { return Vec::new() };
    let is_there =
        |bug: &&Bug| bug.series == (major, minor) && patch < bug.fixed && has_module(bug.module);
    let sentence = |bug: &Bug| {
        let Bug { effect, fixed, or, .. } = bug;
        format!(
            "kernel {release} (Linux {major}.{minor}.{patch}) {effect}: update it to \
             {major}.{minor}.{fixed} or newer{or}"
        )
    };
    BUGS.iter().filter(is_there).map(sentence).collect()
}

/// What an x86 kernel says about itself (Linux `Documentation/arch/x86/boot.rst`, `kernel_version`).
fn version_line(start: &[u8]) -> Option<&str> {
    if start.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let pointer = u16::from_le_bytes([*start.get(0x20e)?, *start.get(0x20f)?]);
    let line = start.get(usize::from(pointer) + 0x200..)?;
    let length = line.iter().take(LINE_SIZE_MAX).position(|&byte| byte == 0)?;
    core::str::from_utf8(&line[..length]).ok()
}

/// Debian and Ubuntu call all kernels of a series `6.1.0-NUMBER`: Debian's version line has the real one,
/// like `Debian 6.1.192-2`.
fn upstream_version(release: &str, line: Option<&str>) -> Option<(u32, u32, u32)> {
    let (major, minor, patch) = numbers(release)?;
    if patch != 0 {
        return Some((major, minor, patch));
    }
    let line = line.filter(|line| line.split(' ').next() == Some(release))?;
    let found = line.split(' ').skip(1).filter_map(numbers);
    found.filter(|found| (found.0, found.1) == (major, minor)).last()
}

/// The three numbers that a version starts with, like 6.1.192.
pub(crate) fn numbers(version: &str) -> Option<(u32, u32, u32)> {
    let mut parts = version.splitn(3, '.');
    let (major, minor, rest) = (parts.next()?, parts.next()?, parts.next()?);
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    Some((major.parse().ok()?, minor.parse().ok()?, rest[..end].parse().ok()?))
}

/// The start of a kernel file with this version line, for tests.
#[cfg(test)]
pub(crate) fn example_kernel(line: &str) -> Vec<u8> {
    let mut bytes = vec![0; 0x280];
    bytes[0x202..0x206].copy_from_slice(b"HdrS");
    bytes[0x20e] = 0x80;
    bytes.extend(line.as_bytes());
    bytes.extend([0; 8]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(release: &str, line: &str, expected: &[&str]) {
        let start = example_kernel(line);
        let found = known_bugs(release, Some(&start), |_| true);
        assert_eq!(found.len(), expected.len(), "{release}: {found:?}");
        for (sentence, words) in found.iter().zip(expected) {
            assert!(sentence.contains(words), "{sentence}");
        }
    }

    #[test]
    fn kernels_with_known_bugs_are_named() {
        let debian = |upstream: &str, release: &str, expected: &[&str]| {
            let line =
                format!("{release} (debian-kernel@lists.debian.org) #1 SMP Debian {upstream} (x)");
            check(release, &line, expected);
        };
        debian("6.1.85-1", "6.1.0-20-amd64", &["(Linux 6.1.85) can crash when the AoE server"]);
        debian("6.1.192-2", "6.1.0-56-amd64", &[]);
        debian("6.12.35-1", "6.12.0-1-amd64", &["update it to 6.12.37", "update it to 6.12.117"]);
        check("6.12.40-200.fc42.x86_64", "", &["SELinux"]);
        check("6.12.117-1.x86_64", "", &[]);
        check("6.1.0-56-amd64", "", &[]);
        check("6.1.0-9-amd64", "6.1.0-8-amd64 Debian 6.1.1-1", &[]);
        check("5.15.0-91-generic", "", &[]);
        check("odd", "", &[]);
        assert!(known_bugs("6.1.20", None, |module| module == "nbd").is_empty());
        assert_eq!(known_bugs("6.1.20", None, |module| module == "aoe").len(), 1);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(release in ".*", line in ".*", cut in 0..700usize) {
            let start = example_kernel(&line);
            known_bugs(&release, Some(&start[..cut.min(start.len())]), |_| true);
            known_bugs(&format!("6.1.{release}"), Some(&start), |_| true);
        }
    }
}
