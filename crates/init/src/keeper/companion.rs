//! Processes of the initrd that stay beside the real system. Each opens all that it needs before the real
//! system gets the machine: after that, no path leads to it any more.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

/// What a companion says when it has opened everything.
const READY: &[u8] = b"ready\n";

/// Starts this program again with these arguments, and waits until it is ready. `name` is what systemd and
/// `ps` see; with an `@` in front systemd does not kill it (ROOT_STORAGE_DAEMONS).
///
/// # Errors
/// It can't be started, or ends at once.
pub(crate) fn start(name: &str, arguments: &[String], input: Stdio) -> io::Result<Child> {
    let mut child = Command::new("/init")
        .arg0(name)
        .args(arguments)
        .env_clear()
        .stdin(input)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut line = String::new();
    if let Some(output) = child.stdout.take() {
        BufReader::new(output).read_line(&mut line)?;
    }
    if line.is_empty() {
        return Err(io::Error::other(format!("{name} ended at once ({})", child.wait()?)));
    }
    Ok(child)
}

/// Has sysvinit do what systemd does by the `@`: leave this process alone when it ends all others.
pub(super) fn omit_from_sendsigs(name: &str, child: &Child) {
    let folder = "/run/sendsigs.omit.d";
    let _ = fs::create_dir_all(folder)
        .and_then(|()| fs::write(format!("{folder}/{name}"), child.id().to_string()));
}

/// Tells whoever waits in [`start`].
pub(crate) fn say_ready() -> io::Result<()> {
    let mut output = io::stdout();
    output.write_all(READY).and_then(|()| output.flush())
}
