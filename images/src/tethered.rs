//! Programs of others, which end with us.

use std::io;
use std::process::{Child, Command};

/// Starts another program so that it ends with us, however we end (util-linux).
const TETHER: &str = "setpriv";

/// What a shell and `setpriv` answer where there is no such program.
pub(crate) const NOT_FOUND: i32 = 127;

/// Starts a program with what `prepare` gives it, so that it ends with us; `more` is for `setpriv`. Without that it may outlive us, if we
/// are killed; it is only work for nothing.
///
/// # Errors
/// It can't be started.
pub(crate) fn start(
    program: &str,
    more: &[&str],
    prepare: impl Fn(&mut Command) -> io::Result<()>,
) -> io::Result<Child> {
    let begin = |mut command: Command| {
        prepare(&mut command)?;
        command.spawn()
    };
    let mut tethered = Command::new(TETHER);
    tethered.args(["--pdeathsig", "KILL"]).args(more).arg(program);
    match begin(tethered) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => begin(Command::new(program)),
        other => other,
    }
}
