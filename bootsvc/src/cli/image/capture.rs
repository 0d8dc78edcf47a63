//! `bootlace image capture`

use super::super::output::{advise, say, table};
use super::AboutNew;
use crate::paths::Paths;
use crate::site::Site;
use clap::Args;
use hyper::Method;
use initcfg::{CaptureEnd, CaptureOrder};
use model::{ImageChoice, ImageName, MachineName, ParseChoiceError};
use serde::Deserialize;
use serde_json::{Value, json};

const CAPTURES: &str = "/api/v1/captures";

/// Make an image of the Linux that is on a PC's own disk
///
/// The machine's next boot reads its own disks and starts no system: it sends the files of the Linux that is on them, which become the next
/// version of the image, as a job. Nothing is written to its disks. Shut the PC down before; then switch it on, so that it boots over the
/// network. Afterwards it restarts, and is what it was. Without NAME: list what is to be captured.
///
/// Example: bootlace image capture office --machine lab-01 --fix
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(in crate::cli) struct Capture {
    /// The image
    #[arg(requires = "machine")]
    name: Option<ImageName>,
    /// The machine
    #[arg(long, requires = "name")]
    machine: Option<MachineName>,
    /// Where its root is, if there are several systems: sda2, or GROUP/VOLUME
    #[arg(long, value_name = "DEVICE")]
    disk: Option<String>,
    /// A folder whose content stays away, like /home; may be given several times
    #[arg(long, value_name = "FOLDER")]
    without: Vec<String>,
    /// The image whose kernel reads the disks [default: the machine's own, or the newest]
    #[arg(long, value_name = "IMAGE")]
    with: Option<ImageChoice>,
    /// Switch the PC off afterwards, instead of a restart
    #[arg(long)]
    off: bool,
    #[command(flatten)]
    about: AboutNew,
    /// Lay files over it against what would hurt a diskless machine (see bootlace image fix)
    #[arg(long)]
    fix: bool,
    /// Let this machine boot as usual after all
    #[arg(long, value_name = "MACHINE", conflicts_with = "name")]
    cancel: Option<MachineName>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What is to be captured where, as the server says.
#[derive(Deserialize)]
struct Begun {
    machine: MachineName,
    image: ImageName,
    with: ImageName,
    with_version: u32,
    by: String,
    boot: Option<u64>,
}

impl Capture {
    pub(super) fn run(self, paths: &Paths) -> anyhow::Result<()> {
        let site = Site::open(paths)?;
        if let Some(machine) = self.cancel {
            let url = format!("{CAPTURES}/{machine}");
            let Begun { machine, .. } = site.send(Method::DELETE, &url, &Value::Null)?;
            say(format!("{machine} boots as usual"));
            return Ok(());
        }
        let (Some(image), Some(machine)) = (self.name, self.machine) else {
            return list(paths, &site, self.json);
        };
        let then = if self.off { CaptureEnd::PowerOff } else { CaptureEnd::Restart };
        let order = order(then, self.disk, self.without)?;
        let AboutNew { note, state } = self.about;
        let wanted = json!({
            "image": image,
            "machine": machine,
            "with": self.with.map(|with| with.to_string()),
            "order": order.to_string(),
            "note": note,
            "state": state,
            "fixes": self.fix,
        });
        let told: Value = site.send(Method::POST, CAPTURES, &wanted)?;
        if self.json {
            say(serde_json::to_string_pretty(&told)?);
            return Ok(());
        }
        let Begun { machine, image, with, with_version, .. } = serde_json::from_value(told)?;
        say(format!(
            "{machine} is captured at its next boot, as {image}, by the kernel of {with}/v{with_version}"
        ));
        let next = format!(
            "Shut down what runs on it, and switch it on so that it boots over the network: bootlace job ls shows how far it is. To have it \
             boot as usual after all: bootlace image capture --cancel {machine}"
        );
        advise(paths, &next);
        Ok(())
    }
}

/// What init is told, checked.
fn order(
    then: CaptureEnd,
    disk: Option<String>,
    without: Vec<String>,
) -> Result<CaptureOrder, ParseChoiceError> {
    CaptureOrder { then, disk, without }.to_string().parse()
}

fn list(paths: &Paths, site: &Site, is_json: bool) -> anyhow::Result<()> {
    let captures: Value = site.get(CAPTURES)?;
    if is_json {
        say(serde_json::to_string_pretty(&captures)?);
        return Ok(());
    }
    let captures: Vec<Begun> = serde_json::from_value(captures)?;
    if captures.is_empty() {
        say("No PC is to be captured.");
        advise(paths, "To order that: bootlace image capture NAME --machine MACHINE");
        return Ok(());
    }
    let row = |it: &Begun| {
        let state = if it.boot.is_some() { "sends" } else { "at its next boot" };
        let with = format!("{}/v{}", it.with, it.with_version);
        [it.machine.to_string(), it.image.to_string(), with, it.by.clone(), state.to_owned()]
    };
    let rows: Vec<[String; 5]> = captures.iter().map(row).collect();
    say(table(["MACHINE", "AS", "BY THE KERNEL OF", "BY", "WHEN"], &rows));
    Ok(())
}
