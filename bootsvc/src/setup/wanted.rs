//! What a setup does once somebody has agreed.

use super::file::write;
use super::{add_admin, has_units, import, is_served, start};
use crate::paths::Paths;
use anyhow::Context as _;
use model::{ImageName, UserName};
use std::path::PathBuf;

/// What is to be done. What was done is taken out, so that trying again goes on.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    /// The configuration; `None`: it stays as it is.
    pub(crate) text: Option<String>,
    /// The first administrator, with his password.
    pub(crate) admin: Option<(UserName, String)>,
    /// The first image: a file, and its name.
    pub(crate) image: Option<(PathBuf, ImageName)>,
    /// A former try has written a configuration.
    has_written: bool,
}

/// What somebody who waits is told.
pub(crate) enum Told {
    /// What is being done.
    Now(String),
    /// What was done.
    Done(String),
}

impl Wanted {
    pub(crate) fn new(
        text: Option<String>,
        admin: Option<(UserName, String)>,
        image: Option<(PathBuf, ImageName)>,
    ) -> Self {
        Self { text, admin, image, has_written: false }
    }

    /// Does all of it, and starts the servers if systemd can; `is_in_terminal`: how far an import is may be shown there.
    ///
    /// # Errors
    /// What could not be done, and why. What comes after it was not tried.
    pub(crate) fn carry_out(
        &mut self,
        paths: &Paths,
        is_in_terminal: bool,
        mut tell: impl FnMut(Told),
    ) -> anyhow::Result<()> {
        let is_new = self.text.is_some() || self.has_written;
        if let Some(text) = &self.text {
            write(paths, text, !self.has_written)?;
            self.has_written = true;
            tell(Told::Done(format!("{} is written.", paths.config().display())));
        }
        self.text = None;
        if let Some((name, password)) = &self.admin {
            add_admin(paths, name, password)?;
            tell(Told::Done(format!("Added {name}, an administrator.")));
        }
        self.admin = None;
        if let Some((file, name)) = &self.image {
            tell(Told::Now(format!("Importing {}", file.display())));
            import(paths, file, name.as_str(), is_in_terminal)?;
            // Perhaps it was there before, with the same content.
            tell(Told::Done(format!("The image {name} is there.")));
        }
        self.image = None;
        match (has_units(paths), is_served(paths)) {
            (true, is_served) if is_new || !is_served => {
                tell(Told::Now("Starting the servers".to_owned()));
                start(paths).context("the servers were not started")?;
                tell(Told::Done("Both servers run.".to_owned()));
            }
            (false, true) if is_new => tell(Told::Done(
                "The servers that run still have the former configuration: restart them."
                    .to_owned(),
            )),
            _ => {}
        }
        self.has_written = false;
        Ok(())
    }

    /// Whether there is nothing that anybody has to agree to.
    pub(crate) const fn is_nothing(&self) -> bool {
        self.text.is_none() && self.admin.is_none() && self.image.is_none()
    }
}
