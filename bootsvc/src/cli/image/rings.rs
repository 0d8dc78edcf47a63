//! `bootlace image release --ring` and `bootlace image ring`

use super::super::output::{advise, say};
use super::versions::NamedVersion;
use crate::paths::Paths;
use crate::site::Site;
use clap::Subcommand;
use hyper::Method;
use model::{ImageName, MachineName, RoomName};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Subcommand)]
pub(in crate::cli) enum RingCommand {
    /// List versions that a room tries, and how the last one of each image has ended
    Ls {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Give all machines now what a room tries
    Pass {
        /// The image
        name: ImageName,
    },
    /// Have the room try it no more, whose machines then get what they follow; puts one aside that has ended
    Stop {
        /// The image
        name: ImageName,
    },
    /// Say for which machines of the room nobody waits, such as one that is being repaired
    ///
    /// Each call says anew which: without machines, it waits for all of them.
    Without {
        /// The image
        name: ImageName,
        /// The machines
        machines: Vec<MachineName>,
    },
}

/// What the server says of a version that a room tries.
#[derive(Deserialize)]
struct Ring {
    image: ImageName,
    version: u32,
    room: RoomName,
    end: Option<String>,
    without: Vec<MachineName>,
    sentence: String,
}

impl RingCommand {
    pub(in crate::cli) fn run(self, paths: &Paths) -> anyhow::Result<()> {
        let url = |name: &ImageName| format!("/api/v1/images/{name}/ring");
        let site = Site::open(paths)?;
        let ring: Ring = match self {
            Self::Ls { json } => return list(&site, json),
            Self::Pass { name } => {
                site.send(Method::POST, &format!("{}/pass", url(&name)), &json!({}))?
            }
            Self::Stop { name } => site.send(Method::DELETE, &url(&name), &json!({}))?,
            Self::Without { name, machines } => {
                let without = json!({ "without": machines });
                site.send(Method::PATCH, &url(&name), &without)?
            }
        };
        tell(&ring);
        Ok(())
    }
}

/// Has a room try a version before all get it.
pub(super) fn begin(
    paths: &Paths,
    version: &NamedVersion,
    room: &RoomName,
    without: &[MachineName],
) -> anyhow::Result<()> {
    let (image, version) = version.parts();
    let wanted = json!({ "version": version, "room": room, "without": without });
    let url = format!("/api/v1/images/{image}/ring");
    let ring: Ring = Site::open(paths)?.send(Method::PUT, &url, &wanted)?;
    say(format!(
        "{image}/v{version}: the machines of the room {} get it at their next boot, and all others when it has proven itself there",
        ring.room
    ));
    tell(&ring);
    advise(paths, "To see how far it is: bootlace image ring ls");
    Ok(())
}

fn list(site: &Site, json: bool) -> anyhow::Result<()> {
    let rings: Value = site.get("/api/v1/rings")?;
    if json {
        say(serde_json::to_string_pretty(&rings)?);
        return Ok(());
    }
    let rings: Vec<Ring> = serde_json::from_value(rings)?;
    if rings.is_empty() {
        say("No room tries a version");
    }
    for ring in &rings {
        tell(ring);
    }
    Ok(())
}

fn tell(ring: &Ring) {
    say(format!("{}/v{}: {}", ring.image, ring.version, ring.sentence));
    if ring.end.is_none() && !ring.without.is_empty() {
        let names: Vec<&str> = ring.without.iter().map(MachineName::as_str).collect();
        say(format!("Nobody waits for {}", names.join(", ")));
    }
}
