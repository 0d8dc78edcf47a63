//! `bootlace initrd ls`

use super::super::{advise, say, table};
use crate::paths::Paths;
use crate::site::Site;
use clap::Args;
use serde::Deserialize;
use serde_json::Value;

#[derive(Args)]
pub(in crate::cli) struct Ls {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// An initrd, or an image version without one.
#[derive(Deserialize)]
struct Listed {
    image: String,
    version: u32,
    kernel: Option<String>,
    size_bytes: Option<u64>,
    state: String,
    #[serde(default)]
    warnings: Vec<String>,
}

impl Ls {
    pub(in crate::cli) fn run(self, paths: &Paths) -> anyhow::Result<()> {
        let initrds: Value = Site::open(paths)?.get("/api/v1/initrds")?;
        if self.json {
            say(serde_json::to_string_pretty(&initrds)?);
            return Ok(());
        }
        let initrds: Vec<Listed> = serde_json::from_value(initrds)?;
        if initrds.is_empty() {
            let import =
                "No images yet, so no initrds. Import one: bootlace image import FILE --name NAME";
            advise(paths, import);
            return Ok(());
        }
        let warnings: Vec<String> = initrds
            .iter()
            .flat_map(|it| {
                it.warnings.iter().map(|warning| format!("{}/v{}: {warning}", it.image, it.version))
            })
            .collect();
        let rows: Vec<[String; 5]> = initrds
            .into_iter()
            .map(|listed| {
                let size = |size| format!("{:.1} MB", size as f64 / 1e6);
                [
                    listed.image,
                    listed.version.to_string(),
                    listed.kernel.unwrap_or("-".to_owned()),
                    listed.size_bytes.map_or("-".to_owned(), size),
                    sentence(listed.state),
                ]
            })
            .collect();
        say(table(["IMAGE", "VERSION", "KERNEL", "SIZE", "STATE"], &rows));
        for warning in warnings {
            say(warning);
        }
        Ok(())
    }
}

/// The state, and what follows from it.
fn sentence(state: String) -> String {
    let more = match state.as_str() {
        "unused" => ": the image version is gone",
        "missing" => ": will be built when the server runs or a machine asks for it",
        "outdated" => {
            ": built by another Bootlace or with other settings, replaced at its next use"
        }
        _ => "",
    };
    state + more
}
