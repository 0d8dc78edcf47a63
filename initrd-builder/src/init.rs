//! The program that every initrd starts with.

use crate::BuildError;
use crate::program::{NoProgram, Processor, Program};
use initcfg::{INIT_MARK, INIT_VERSION};

/// Longest version that is looked for behind the mark.
const VERSION_MAX: usize = 64;

/// A `bootlace-init` that the kernel can start from an initrd.
#[derive(Clone, Debug)]
pub struct Init {
    bytes: Vec<u8>,
    processor: Processor,
}

impl Init {
    /// Looks at the content of the file. Never panics, whatever the bytes.
    ///
    /// # Errors
    /// It is no whole program, needs shared libraries, or is that of another version of Bootlace: machines
    /// would get an initrd that they can't start, and panic.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, BuildError> {
        let refused = |why: &str| BuildError::Init { why: why.to_owned() };
        let program = Program::parse(&bytes).map_err(|wrong| match wrong {
            NoProgram::Empty => refused("it is empty"),
            NoProgram::Script => refused("it is a script, and an initrd has no shell"),
            NoProgram::NotElf => refused("it is not a program for 64-bit Linux"),
            NoProgram::Truncated => refused("it is cut off or damaged"),
        })?;
        if program.needs_libraries {
            return Err(refused("it needs shared libraries, and an initrd has none"));
        }
        match version(&bytes) {
            Some(version) if version == INIT_VERSION => {}
            Some(version) => {
                let why =
                    format!("it is of Bootlace {version}, and this is Bootlace {INIT_VERSION}");
                return Err(BuildError::Init { why });
            }
            None => {
                let why = format!(
                    "it does not say that it is the one of Bootlace {INIT_VERSION}: it is another \
                     program, or that of an older version"
                );
                return Err(BuildError::Init { why });
            }
        }
        Ok(Self { bytes, processor: program.processor })
    }

    /// The file.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What it runs on.
    pub(crate) const fn processor(&self) -> Processor {
        self.processor
    }
}

/// The version that stands behind the mark.
fn version(bytes: &[u8]) -> Option<&str> {
    let mark = INIT_MARK.as_bytes();
    let at = bytes.windows(mark.len()).position(|window| window == mark)?;
    let rest = &bytes[at + mark.len()..];
    let length = rest.iter().take(VERSION_MAX).position(|&byte| byte == b'\n')?;
    core::str::from_utf8(&rest[..length]).ok()
}

/// An init of this version for such a processor, for tests; `text` makes it another one.
#[cfg(test)]
pub(crate) fn example_init(processor: Processor, text: &[u8]) -> Init {
    let mut bytes = crate::program::example_program(processor, 1);
    bytes.extend(format!("{INIT_MARK}{INIT_VERSION}\n").bytes());
    bytes.extend(text);
    Init::parse(bytes).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::example_program;

    #[test]
    fn an_init_that_no_machine_can_start_is_refused_in_words() {
        let check = |bytes: &[u8], expected: &str| {
            let error = Init::parse(bytes.to_vec()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        let good = example_init(Processor::OURS, b"").bytes;
        let mark_at = good.len() - format!("{INIT_MARK}{INIT_VERSION}\n").len();
        check(b"", "it is empty");
        check(b"#!/bin/sh\nexec /sbin/init\n", "a script");
        check(b"version https://git-lfs.github.com/spec/v1\n", "not a program");
        check(
            &[&example_program(Processor::OURS, 3), &good[mark_at..]].concat(),
            "shared libraries",
        );
        check(&good[..100], "cut off");
        check(&good[..mark_at], "another program, or that of an older version");
        check(&good[..good.len() - 1], "another program, or that of an older version");
        let other = [&good[..mark_at], INIT_MARK.as_bytes(), b"0.0.9\n"].concat();
        check(&other, "it is of Bootlace 0.0.9");
        for end in 0..good.len() {
            assert!(Init::parse(good[..end].to_vec()).is_err(), "{end}");
        }
    }
}
