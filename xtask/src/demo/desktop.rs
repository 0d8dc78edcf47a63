//! Whether a PC shows its desktop: what a person would see.

use crate::interrupt::Interrupt;
use crate::say;
use anyhow::{Result, bail};
use lab::{Pc, Picture};
use std::path::Path;
use std::time::{Duration, Instant};

/// From the login prompt on the serial console to the desktop: without KVM everything takes ten times as long.
const TIMEOUT: Duration = Duration::from_secs(600);

/// How often the screen is looked at.
const LOOK: Duration = Duration::from_secs(2);

/// Where the last picture is kept.
const PICTURE: &str = "target/demo/desktop.png";

/// Waits until the desktop is there, and leaves a picture of it.
pub(super) fn wait(pc: &mut Pc, interrupt: &Interrupt) -> Result<()> {
    let path = std::path::absolute(PICTURE)?;
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    say("waiting for the desktop");
    let begun = Instant::now();
    loop {
        let picture = pc.picture(Some(&path))?;
        if is_desktop(&picture) {
            let after = begun.elapsed().as_secs();
            say(&format!("{} s later the desktop is there: {}", after, path.display()));
            return Ok(());
        }
        if interrupt.has_come() || begun.elapsed() > TIMEOUT {
            bail!(
                "there was no desktop: {} is what was there instead",
                Path::new(PICTURE).display()
            );
        }
        std::thread::sleep(LOOK);
    }
}

fn is_desktop(picture: &Picture) -> bool {
    let _ = picture;
    todo!()
}
