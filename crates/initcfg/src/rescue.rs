//! The password that opens a machine's rescue shell: minted by the boot server for one boot, shown to the
//! administrator, and known to the machine only as a hash.

use crate::{Tag, Token};
use core::fmt;
use core::str::FromStr;

/// Where the archive with the rescue shell's busybox is on the boot server; the same for all machines.
pub const RESCUE_ARCHIVE_PATH: &str = "/boot/rescue";

/// The busybox of the rescue shell in the initrd, without leading slash.
pub const RESCUE_BUSYBOX: &str = "bin/busybox";

/// Largest busybox in bytes: Debian's static one has 2 MB.
pub const RESCUE_BUSYBOX_MAX: usize = 16 << 20;

/// Letters that look like no other, at the same place on QWERTY, QWERTZ and AZERTY keyboards: the console
/// knows only the first.
const ALPHABET: &[u8] = b"bcdefghjknprstuvx";

/// Length of a password: one of 17⁸, or 7·10⁹.
const LETTERS: usize = 8;

/// Each guess costs somebody who has read the hash on the network so many hashes; and init, once, some
/// milliseconds.
const ROUNDS: u32 = 1 << 15;

/// A password for a rescue shell.
#[derive(Clone, PartialEq, Eq)]
pub struct RescuePassword([u8; LETTERS]);

/// The text is no such password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the password of a rescue shell")]
pub struct NotAPassword;

impl RescuePassword {
    /// The password with this number, which must be random.
    pub fn new(random: u64) -> Self {
        let mut left = random;
        Self(core::array::from_fn(|_| {
            let n_letters = ALPHABET.len() as u64;
            let letter = ALPHABET[(left % n_letters) as usize];
            left /= n_letters;
            letter
        }))
    }

    /// The eight letters, as a person reads them. Not `Display`: a password must not get into a log by accident.
    pub fn as_str(&self) -> &str {
        core::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// What the machine is told instead. The token is the salt: another boot has another hash.
    pub fn hash(&self, token: &Token) -> Tag {
        let mut tag = token.tag(&[b"rescue ", self.0.as_slice()].concat());
        for _ in 1..ROUNDS {
            tag = token.tag(tag.as_bytes());
        }
        tag
    }
}

impl FromStr for RescuePassword {
    type Err = NotAPassword;

    /// Reads what a person typed: capital letters, spaces and hyphens don't matter.
    fn from_str(text: &str) -> Result<Self, NotAPassword> {
        let mut letters = text
            .bytes()
            .filter(|byte| !byte.is_ascii_whitespace() && *byte != b'-')
            .map(|byte| byte.to_ascii_lowercase());
        let mut password = [0; LETTERS];
        for place in &mut password {
            *place = letters.next().filter(|byte| ALPHABET.contains(byte)).ok_or(NotAPassword)?;
        }
        if letters.next().is_some() { Err(NotAPassword) } else { Ok(Self(password)) }
    }
}

impl fmt::Debug for RescuePassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RescuePassword(secret)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_can_be_typed() {
        for random in [0, 1, 16, 17, 6_975_757_440, u64::MAX] {
            let password = RescuePassword::new(random);
            assert_eq!(password.as_str().len(), LETTERS);
            assert_eq!(password.as_str().parse(), Ok(password.clone()));
            let (first, second) = password.as_str().split_at(4);
            let typed = alloc::format!(" {}-{second}\r", first.to_uppercase());
            assert_eq!(typed.parse(), Ok(password));
        }
        for wrong in ["", "bcdefghj-k", "bcdefgh", "acdefghj", "bcdefghé", "bcdefgh\0"] {
            assert_eq!(wrong.parse::<RescuePassword>(), Err(NotAPassword), "{wrong}");
        }
    }

    #[test]
    fn only_this_password_of_this_boot_has_this_hash() {
        let (password, token) = (RescuePassword::new(4711), Token::new([7; 32]));
        assert_eq!(password.hash(&token), password.hash(&token));
        assert_ne!(password.hash(&token), RescuePassword::new(4712).hash(&token));
        assert_ne!(password.hash(&token), password.hash(&Token::new([8; 32])));
        assert!(!alloc::format!("{password:?}").contains(password.as_str()));
    }
}
