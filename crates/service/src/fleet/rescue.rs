//! Rescue shells: one boot of a machine stops in a shell, which a password opens.

use crate::error::{Error, io_error};
use crate::service::Service;
use crate::store::view::Part;
use initcfg::{RESCUE_BUSYBOX_MAX, RescuePassword};
use model::{BootId, MachineName};
use rusqlite::{Connection, OptionalExtension as _, params};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Where distributions put busybox.
const BUSYBOXES: [&str; 2] = ["/bin/busybox", "/usr/bin/busybox"];

/// A rescue shell that somebody asked for.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Rescue {
    /// What opens it on the machine's console.
    pub password: String,
    /// The boot that stops in it; `None`: the machine's next one.
    pub boot: Option<BootId>,
}

/// Passwords of the shells that the next boots stop in.
pub(crate) fn wanted(connection: &Connection) -> rusqlite::Result<HashMap<String, String>> {
    let mut query = connection.prepare_cached("SELECT machine, password FROM rescue_wanted")?;
    let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    rows.collect()
}

/// Password of the shell that this boot stops in.
pub(crate) fn of_boot(connection: &Connection, boot: BootId) -> rusqlite::Result<Option<String>> {
    let mut query = connection.prepare_cached("SELECT password FROM rescue WHERE boot = ?1")?;
    query.query_row([boot], |row| row.get(0)).optional()
}

/// This boot is the one that stops, if a shell is wanted.
pub(crate) fn bind(
    connection: &Connection,
    machine: &MachineName,
    boot: BootId,
) -> rusqlite::Result<()> {
    connection.execute(
        "INSERT OR REPLACE INTO rescue SELECT ?2, password FROM rescue_wanted WHERE machine = ?1",
        params![machine.as_str(), boot],
    )?;
    connection.execute("DELETE FROM rescue_wanted WHERE machine = ?1", [machine.as_str()])?;
    Ok(())
}

impl Service {
    /// Lets the next boot of a machine stop in a rescue shell. Who asks again before that boot gets the
    /// same password.
    ///
    /// # Errors
    /// There is no such machine, there is no busybox for the shell, or the database can't be written.
    pub async fn want_rescue(&self, name: &MachineName) -> Result<Rescue, Error> {
        self.site().machine(name).ok_or_else(|| Error::NoMachine(name.clone()))?;
        // Now, while somebody listens.
        self.busybox().await?;
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|_| Error::NoRandomness)?;
        let password = RescuePassword::new(u64::from_le_bytes(random));
        let machine = name.clone();
        let password = self
            .database()
            .write(move |connection| {
                let password: String = connection.query_row(
                    "INSERT INTO rescue_wanted VALUES (?1, ?2) \
                     ON CONFLICT (machine) DO UPDATE SET machine = machine RETURNING password",
                    params![machine.as_str(), password.as_str()],
                    |row| row.get(0),
                )?;
                Ok((Part::Site, password))
            })
            .await?;
        tracing::info!(machine = %name, "its next boot stops in a rescue shell");
        Ok(Rescue { password, boot: None })
    }

    /// Lets the next boot of a machine go through after all. What runs already stays as it is.
    ///
    /// # Errors
    /// There is no such machine, or the database can't be written.
    pub async fn forget_rescue(&self, name: &MachineName) -> Result<(), Error> {
        self.site().machine(name).ok_or_else(|| Error::NoMachine(name.clone()))?;
        let machine = name.clone();
        self.database()
            .write(move |connection| {
                let query = "DELETE FROM rescue_wanted WHERE machine = ?1";
                connection.execute(query, [machine.as_str()])?;
                Ok((Part::Site, ()))
            })
            .await
    }

    /// The archive with the rescue shell, the same for all machines.
    ///
    /// # Errors
    /// There is no static busybox.
    pub async fn rescue_archive(&self) -> Result<Vec<u8>, Error> {
        let busybox = self.busybox().await?;
        initrd_builder::rescue_segment(busybox)
            .map_err(|error| Error::NoBusybox { why: wire::error_chain(&error) })
    }

    /// The first static busybox of this host, or the one that is configured.
    async fn busybox(&self) -> Result<Vec<u8>, Error> {
        let candidates: Vec<PathBuf> = match &self.options().rescue_busybox {
            Some(path) => vec![path.clone()],
            None => BUSYBOXES.map(PathBuf::from).to_vec(),
        };
        let mut troubles = Vec::new();
        for path in candidates {
            match read_busybox(&path).await {
                Ok(Some(program)) => return Ok(program),
                Ok(None) => troubles.push(format!("{} is no static program", path.display())),
                Err(error) => troubles.push(wire::error_chain(&error)),
            }
        }
        Err(Error::NoBusybox { why: troubles.join("; ") })
    }
}

async fn read_busybox(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    let size = tokio::fs::metadata(path).await.map_err(io_error("read", path))?.len();
    if size > RESCUE_BUSYBOX_MAX as u64 {
        return Ok(None);
    }
    let program = tokio::fs::read(path).await.map_err(io_error("read", path))?;
    Ok(initrd_builder::is_static_program(&program).then_some(program))
}
