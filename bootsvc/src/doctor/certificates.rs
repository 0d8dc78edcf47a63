//! Until when certificates are good.

use super::Look;
use crate::certificates::{How, used};
use crate::check::Verdict;
use crate::config::Config;
use crate::paths::Paths;
use jiff::Timestamp;

/// All that are good, or may not be looked at: those that are not `check` tells.
pub(super) fn looks(paths: &Paths, config: &Config) -> Vec<Look> {
    let now = Timestamp::now();
    let verdict = |path: &str, how: How| match how {
        How::Good(day) => Some(Verdict::Right(format!("certificate {path}: good until {day}"))),
        How::Unseen => Some(Verdict::Unseen(format!("until when {path} is good"))),
        _ => None,
    };
    let files = used(paths, config, config.web.listen).into_iter();
    let verdicts =
        files.filter_map(|used| verdict(&used.path.display().to_string(), used.look(now).0));
    verdicts.map(Look::at_servers).collect()
}
