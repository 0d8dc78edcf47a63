//! Which browser may set up: the first that has the code of the link.

use anyhow::Context as _;
use blake3::Hash;
use ring::rand::{SecureRandom as _, SystemRandom};
use std::sync::Mutex;

/// Random bytes of a code, and of what the browser shows from then on.
const SECRET_BYTES: usize = 32;

/// Lets one browser in.
#[derive(Debug)]
pub(super) struct Door {
    state: Mutex<State>,
}

/// What is known of secrets: their hashes, which are compared in constant time.
#[derive(Debug)]
enum State {
    /// Nobody was let in so far; who has this code is.
    Waits(Hash),
    /// Who shows this was.
    LetIn(Hash),
}

impl Door {
    /// A door, and the code that opens it.
    ///
    /// # Errors
    /// The kernel gives no random bytes.
    pub(super) fn new() -> anyhow::Result<(Self, String)> {
        let code = secret()?;
        Ok((Self { state: Mutex::new(State::Waits(hash(&code))) }, code))
    }

    /// What the browser is to show that has come with this code; `None`: it is wrong, or was used.
    pub(super) fn enter(&self, code: &str) -> Option<String> {
        let secret = secret().ok()?;
        let mut state = self.state();
        match &*state {
            State::Waits(expected) if hash(code) == *expected => {
                *state = State::LetIn(hash(&secret));
                Some(secret)
            }
            _ => None,
        }
    }

    /// Whether this is the browser that was let in.
    pub(super) fn knows(&self, secret: &str) -> bool {
        matches!(&*self.state(), State::LetIn(expected) if hash(secret) == *expected)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn hash(secret: &str) -> Hash {
    blake3::hash(secret.as_bytes())
}

fn secret() -> anyhow::Result<String> {
    let mut random = [0; SECRET_BYTES];
    SystemRandom::new().fill(&mut random).ok().context("the kernel gives no random bytes")?;
    Ok(Hash::from_bytes(random).to_hex().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_browser_is_let_in_once() {
        let (door, code) = Door::new().unwrap();
        assert!(door.enter("").is_none() && door.enter(&code[1..]).is_none());
        assert!(!door.knows(&code) && !door.knows(""));
        let secret = door.enter(&code).unwrap();
        assert!(door.knows(&secret) && !door.knows(&code));
        assert!(door.enter(&code).is_none(), "the code is good once");
        assert!(door.knows(&secret), "who comes with a used code changes nothing");
    }
}
