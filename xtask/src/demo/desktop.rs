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

/// Whether XFCE shows Debian's wallpaper, a light panel at the top, and writing on it.
fn is_desktop(picture: &Picture) -> bool {
    let (_, height) = picture.size();
    let panel = 0..height / 32;
    let is_wallpaper = |[r, g, b]: [u8; 3]| {
        r < 90 && (50..180).contains(&g) && (60..170).contains(&b) && b > r && g > r
    };
    let is_light = |pixel: [u8; 3]| pixel.into_iter().all(|it| it > 200);
    picture.percent(height / 10..height * 9 / 10, is_wallpaper) > 60
        && picture.percent(panel.clone(), is_light) > 60
        && picture.changes(panel) > 30
}
