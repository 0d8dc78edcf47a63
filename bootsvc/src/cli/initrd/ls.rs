//! `bootlace initrd ls`

use super::super::{say, table};
use crate::config::Config;
use crate::paths::Paths;
use clap::Args;
use service::{InitrdFile, Options, Service};

#[derive(Args)]
pub(in crate::cli) struct Ls {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Ls {
    pub(in crate::cli) fn run(self, paths: &Paths) -> anyhow::Result<()> {
        // Without a configuration there is no TLS.
        let config = Config::load(&paths.config()).ok();
        let ca = config.map(|config| config.storage.machine_ca()).transpose()?.flatten();
        let service = Service::open(Options::under(&paths.root).with_nbd_ca(ca))?;
        let files = service.initrd_files()?;
        if self.json {
            let all: Vec<serde_json::Value> = files.iter().map(to_json).collect();
            say(serde_json::to_string_pretty(&all)?);
            return Ok(());
        }
        if files.is_empty() {
            say("No images yet, so no initrds. Import one: bootlace image import FILE --name NAME");
            return Ok(());
        }
        let rows: Vec<[String; 5]> = files
            .iter()
            .map(|file| {
                [
                    file.image.to_string(),
                    file.version.to_string(),
                    file.kernel.clone().unwrap_or("-".to_owned()),
                    file.size_bytes
                        .map_or("-".into(), |size| format!("{:.1} MB", size as f64 / 1e6)),
                    state(file).1.to_owned(),
                ]
            })
            .collect();
        say(table(["IMAGE", "VERSION", "KERNEL", "SIZE", "STATE"], &rows));
        Ok(())
    }
}

/// In one word, and in a sentence.
fn state(file: &InitrdFile) -> (&'static str, &'static str) {
    match (file.kernel.is_some(), file.size_bytes.is_some(), file.is_current) {
        (false, _, _) => ("unused", "unused: the image version is gone"),
        (_, false, _) => {
            ("missing", "missing: will be built when the server runs or a machine asks for it")
        }
        (_, _, true) => ("ready", "ready"),
        (_, _, false) => {
            ("outdated", "outdated: built by another version of Bootlace, replaced at its next use")
        }
    }
}

fn to_json(file: &InitrdFile) -> serde_json::Value {
    serde_json::json!({
        "image": file.image,
        "version": file.version,
        "kernel": file.kernel,
        "size_bytes": file.size_bytes,
        "path": file.path,
        "state": state(file).0,
    })
}
