//! What readers see: the state as of the last commit, immutable.

use crate::boot::words::{self, Control};
use crate::fleet::rescue;
use crate::store::rows;
use model::{Boot, Lease, Seen, Site};
use rusqlite::Connection;
use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use wire::Mac;

/// The state of the site. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    pub(crate) site: Arc<Site>,
    pub(crate) leases: Arc<Vec<Lease>>,
    /// The last boot of each NIC.
    pub(crate) boots: HashMap<Mac, Arc<Boot>>,
    /// What only the boot server and the machine know of the last boot of each NIC.
    pub(crate) controls: HashMap<Mac, Arc<Control>>,
    /// Passwords of the rescue shells that machines stop in at their next boot, by name.
    pub(crate) rescues: Arc<HashMap<String, String>>,
    /// All PCs that ever asked for a loader, machines too.
    pub(crate) seen: Arc<Vec<Seen>>,
}

impl View {
    /// Whose address it is.
    pub(crate) fn lease_of(&self, address: Ipv4Addr) -> Option<&Lease> {
        self.leases.iter().find(|lease| lease.address == address)
    }
}

/// What a change touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Machines or images.
    Site,
    /// Leases.
    Leases,
    /// The boots of one NIC.
    Boot(Mac),
    /// PCs that asked.
    Seen,
    /// Nothing.
    Nothing,
}

pub(crate) fn load_all(connection: &Connection) -> rusqlite::Result<View> {
    let mut view = View { boots: rows::last_boots(connection)?, ..View::default() };
    for (mac, boot) in &view.boots {
        view.controls.insert(*mac, Arc::new(words::of_boot(connection, boot.id)?));
    }
    for part in [Part::Leases, Part::Seen, Part::Site] {
        load_part(connection, part, &mut view)?;
    }
    Ok(view)
}

pub(crate) fn load_part(
    connection: &Connection,
    part: Part,
    view: &mut View,
) -> rusqlite::Result<()> {
    match part {
        Part::Nothing => {}
        Part::Leases => view.leases = Arc::new(rows::leases(connection)?),
        Part::Boot(mac) => {
            match rows::last_boot(connection, mac)? {
                Some(boot) => {
                    let control = words::of_boot(connection, boot.id)?;
                    view.controls.insert(mac, Arc::new(control));
                    view.boots.insert(mac, Arc::new(boot));
                }
                None => {
                    view.controls.remove(&mac);
                    view.boots.remove(&mac);
                }
            }
            // A boot may have taken one.
            view.rescues = Arc::new(rescue::wanted(connection)?);
        }
        Part::Seen => {
            view.seen = Arc::new(rows::seen(connection)?);
            let mut site = Site::clone(&view.site);
            site.discovered = discovered(&site, &view.seen);
            view.site = Arc::new(site);
        }
        Part::Site => {
            view.rescues = Arc::new(rescue::wanted(connection)?);
            let mut site = Site {
                machines: rows::machines(connection)?,
                images: rows::image_versions(connection)?,
                discovered: Vec::new(),
            };
            site.discovered = discovered(&site, &view.seen);
            view.site = Arc::new(site);
        }
    }
    Ok(())
}

fn discovered(site: &Site, seen: &[Seen]) -> Vec<Seen> {
    seen.iter().filter(|seen| site.machine_by_mac(seen.mac).is_none()).cloned().collect()
}
