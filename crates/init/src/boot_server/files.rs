//! The files that the site lays over this machine's root, as the boot server seals them for this boot.

use super::http;
use crate::failure::Failure;
use initcfg::{BootConfig, FILES_SEALED_MAX, FilesAsked, Overlay, Token, open_files};
use std::time::Duration;

/// How often the files are asked for, with a second in between: a boot server that is started anew is back by then.
const FETCHES_MAX: u32 = 10;

/// Asks the boot server for the files of this boot.
///
/// # Errors
/// They don't come: a machine without its files is another one than its administrator wants, so its boot ends here.
pub(crate) fn fetch(config: &BootConfig, token: Option<&Token>) -> Result<Overlay, Failure> {
    let failed = |why: String| {
        Failure::new(
            format!("the files that are laid over this machine's root can't be fetched: {why}"),
            "see on the boot server whether bootlace serve runs and what its log says; this machine tries again at its \
             next start",
        )
    };
    let Some(token) = token else {
        return Err(failed("this boot has no secret, by which they are sealed".to_owned()));
    };
    let path = FilesAsked::new(config.boot, token).to_path();
    let mut tried = 1;
    let sealed = loop {
        match http::get(config.server, &path, FILES_SEALED_MAX) {
            Ok(sealed) => break sealed,
            Err(error) if tried == FETCHES_MAX => return Err(failed(error.to_string())),
            Err(_) => tried += 1,
        }
        std::thread::sleep(Duration::from_secs(1));
    };
    let opened = open_files(token, config.boot, &sealed).map_err(|error| error.to_string());
    let parsed = opened.and_then(|file| Overlay::parse(&file).map_err(|error| error.to_string()));
    parsed.map_err(failed)
}
