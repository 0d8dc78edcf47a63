//! What screens of machines show, for people.

use crate::error::Error;
use crate::people::{Admin, Viewer};
use bytes::Bytes;
use model::MachineName;

/// How a PNG begins (PNG specification, 5.2).
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";

impl Viewer {
    /// What the machine's screen shows, as PNG, if somebody has sent a picture just now.
    pub fn screen(&self, machine: &MachineName) -> Option<Bytes> {
        self.service().screens().get(machine, self.now().moment)
    }
}

impl Admin {
    /// Shows a picture of the machine's screen for a few seconds, in place of the one before. Returns whether it is one: a PNG.
    ///
    /// # Errors
    /// There is no such machine.
    pub fn show_screen(&self, machine: MachineName, picture: Bytes) -> Result<bool, Error> {
        if self.site().machine(&machine).is_none() {
            return Err(Error::NoMachine(machine));
        }
        let is_picture = picture.starts_with(PNG);
        if is_picture {
            self.service().screens().put(machine, self.now().moment, picture);
        }
        Ok(is_picture)
    }
}
