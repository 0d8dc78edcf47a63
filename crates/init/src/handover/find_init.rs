//! Which program of the root becomes PID 1.

use super::resolve::resolve;
use crate::failure::Failure;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Programs that are tried as the real init, as the kernel does it. The kernel's last one, `/bin/sh`, is left
/// out: a damaged image must not give everybody at the keyboard a shell of root.
const INITS: [&str; 3] = ["/sbin/init", "/etc/init", "/bin/init"];

/// The real system's init: what the command line says, or the first one that is there.
///
/// # Errors
/// There is none. The first that is there, but can't be a program, ends the search: the next one would be another
/// system than the one that was installed.
pub(crate) fn find_init(root: &Path, command_line: &str) -> Result<String, Failure> {
    let wanted =
        command_line.split_ascii_whitespace().rev().find_map(|word| word.strip_prefix("init="));
    let candidates: Vec<&str> = match wanted {
        Some(path) => vec![path],
        None => INITS.to_vec(),
    };
    for path in &candidates {
        match look(root, path) {
            Ok(true) => return Ok((*path).to_owned()),
            Ok(false) => {}
            Err(why) => {
                return Err(Failure::new(
                    format!("{path} of the root disk can't be started: {why}"),
                    "repair the image, and import it again",
                ));
            }
        }
    }
    Err(Failure::new(
        format!("the root disk has no {}: it is not a complete system", candidates[0]),
        "assign an image that holds an installed Linux; perhaps its root is another partition",
    ))
}

/// Whether the program is there; in words why it can't be one.
fn look(root: &Path, path: &str) -> Result<bool, String> {
    let file = resolve(root, Path::new(path)).ok_or("its links lead round in a circle")?;
    let status = match fs::metadata(&file) {
        Ok(status) => status,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        // A part of the path is a file.
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Ok(false),
        Err(error) => return Err(error.to_string()),
    };
    if !status.is_file() {
        return Err("it is not a file".to_owned());
    }
    let mode = status.permissions().mode() & 0o7777;
    if mode & 0o111 == 0 {
        return Err(format!("it is not executable (its mode is {mode:04o})"));
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_program_that_cannot_run_is_no_reason_to_start_another_one() {
        let root = std::env::temp_dir().join(format!("bootlace-find-init-{}", std::process::id()));
        let put = |path: &str, mode: u32| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        };
        let find = |line: &str| find_init(&root, line).map_err(|failure| failure.what);
        put("bin/sh", 0o755);
        let missing = "the root disk has no /sbin/init: it is not a complete system";
        assert_eq!(find("quiet"), Err(missing.to_owned()), "a shell is no system");
        assert_eq!(find("init=/bin/sh"), Ok("/bin/sh".to_owned()), "unless somebody asks for it");
        put("bin/init", 0o755);
        assert_eq!(find(""), Ok("/bin/init".to_owned()));
        put("lib/systemd", 0o644);
        fs::create_dir_all(root.join("sbin")).unwrap();
        symlink("/lib/systemd", root.join("sbin/init")).unwrap();
        let refused =
            "/sbin/init of the root disk can't be started: it is not executable (its mode is 0644)";
        assert_eq!(find(""), Err(refused.to_owned()));
        put("lib/systemd", 0o755);
        assert_eq!(find(""), Ok("/sbin/init".to_owned()));
        fs::remove_file(root.join("sbin/init")).unwrap();
        symlink("init", root.join("sbin/init")).unwrap();
        assert!(find("").unwrap_err().contains("in a circle"));
        fs::remove_file(root.join("sbin/init")).unwrap();
        fs::create_dir(root.join("sbin/init")).unwrap();
        assert!(find("").unwrap_err().contains("it is not a file"));
        fs::remove_dir_all(&root).unwrap();
    }
}
