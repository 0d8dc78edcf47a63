//! What an error says together with its causes.

use alloc::string::{String, ToString};
use core::error::Error;

/// An error and its causes in one line, the outermost first: `can't read /etc/x: permission denied`.
///
/// Nothing is said twice, as some errors repeat their causes, and others what is said of them: a cause whose text stands
/// in the line already is left out, and one that begins with what was said last replaces that.
pub fn error_chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut last = 0;
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if more.starts_with(&line[last..]) {
            line.truncate(last);
            line.push_str(&more);
        } else if !line.contains(&more) {
            line.push_str(": ");
            last = line.len();
            line.push_str(&more);
        }
        cause = error.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Truncated;

    #[derive(Debug, thiserror::Error)]
    #[error("no {what}")]
    struct Outer {
        what: &'static str,
        source: Inner,
    }

    #[derive(Debug, thiserror::Error)]
    #[error("cut short")]
    struct Inner(#[source] Truncated);

    #[derive(Debug, thiserror::Error)]
    #[error("{said}")]
    struct Repeated {
        said: &'static str,
        source: Truncated,
    }

    #[test]
    fn causes_follow_and_nothing_is_said_twice() {
        let cause = Truncated { field: "xid", wanted: 4, left: 1 };
        let outer = |what| Outer { what, source: Inner(cause) };
        assert_eq!(error_chain(&cause), "truncated: xid needs 4 bytes, 1 are left");
        assert_eq!(
            error_chain(&outer("packet")),
            "no packet: cut short: truncated: xid needs 4 bytes, 1 are left"
        );
        assert_eq!(
            error_chain(&outer("packet, it is cut short")),
            "no packet, it is cut short: truncated: xid needs 4 bytes, 1 are left"
        );
        let cause = Repeated { said: "cut short", source: cause };
        assert_eq!(error_chain(&cause), "cut short: truncated: xid needs 4 bytes, 1 are left");
        assert_eq!(
            error_chain(&Repeated { said: "truncated", ..cause }),
            "truncated: xid needs 4 bytes, 1 are left"
        );
    }
}
