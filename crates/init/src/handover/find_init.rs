//! Which program of the root becomes PID 1.

use super::resolve::resolve;
use crate::failure::Failure;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Programs that are tried as the real init, as the kernel does it.
const INITS: [&str; 4] = ["/sbin/init", "/etc/init", "/bin/init", "/bin/sh"];

/// The real system's init: what the command line says, or the first one that is there.
pub(crate) fn find_init(root: &Path, command_line: &str) -> Result<String, Failure> {
    let wanted =
        command_line.split_ascii_whitespace().rev().find_map(|word| word.strip_prefix("init="));
    let is_program = |path: &str| {
        resolve(root, Path::new(path))
            .and_then(|file| fs::metadata(file).ok())
            .is_some_and(|status| status.is_file() && status.permissions().mode() & 0o111 != 0)
    };
    let candidates: Vec<&str> = match wanted {
        Some(path) => vec![path],
        None => INITS.to_vec(),
    };
    candidates.iter().find(|path| is_program(path)).map(|path| (*path).to_owned()).ok_or_else(|| {
        Failure::new(
            format!("the root disk has no {}: it is not a complete system", candidates[0]),
            "assign an image that holds an installed Linux; perhaps its root is another partition",
        )
    })
}
